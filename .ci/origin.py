"""A hash of what a notebook's outputs came from: its code, the modules it reaches, the data these name.

Docstrings, annotations, comments and formatting change nothing. `outputs.py` compares and records."""

import ast
import hashlib
import json
import re
from configparser import ConfigParser
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("nbs/tests", "nbs/benchmarks")  # plain code that notebooks import by its bare name
DATA = ("ehrseq/**/sample", "ehrseq/**/*.csv", "nbs/**/results/*", "nbs/**/params/*")  # committed
BRIEFLY = {"out": "_runs/pretrain", "epochs": 2}
ASKED = {"tasks": ["onset ^Acute bronchitis", "readmission"], "at": "2019-01-01", "horizon": 1800}
JOBS = {  # a job: what its page is made with (else its defaults), and the jobs that run before it
    "pretrain": ({}, {}),
    "embed": ({}, {"pretrain": BRIEFLY}),
    "evaluate": (ASKED, {"pretrain": BRIEFLY}),
    "finetune": ({}, {"pretrain": BRIEFLY}),
    "compare": ({"epochs": 2}, {}),
    "sweep": ({}, {}),
}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


def hidden(path: Path, top: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(top).parts)


def settings() -> dict[str, str]:
    found = ConfigParser()
    found.read(ROOT / "settings.ini", encoding="utf-8")
    none = dict.fromkeys(("tst_flags", "allowed_metadata_keys", "allowed_cell_metadata_keys"), "")
    return none | dict(found["DEFAULT"])


def left_out(text: str) -> bool:
    "Whether nbdev's tests leave a cell out: `#| eval: false`, or a flag of settings.ini."
    if not text.startswith("#|"):
        return "nbdev_export(" in text
    flags = "|".join(["eval:\\s*false", *settings()["tst_flags"].split()])
    return bool(re.search(rf"^#\|\s*({flags})\b", text, re.M | re.I)) or "nbdev_export(" in text


# Code, without what changes nothing: docstrings, annotations, comments, formatting


class Plain(ast.NodeTransformer):
    def visit(self, node):
        super().generic_visit(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(None)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            undocumented(node)
        return node


def undocumented(node: ast.AST) -> None:
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:] or [ast.Pass()]


@cache
def plain(text: str, module: bool) -> ast.Module:
    "The tree of a module, or of a notebook's cell, in which a line of magic is a string."
    if not module:
        text = re.sub(r"^(\s*)([%!].*)$", lambda m: m[1] + repr(m[2]), text, flags=re.M)
    try:
        tree = ast.parse(text)
    except SyntaxError:  # magic of another form: taken as text
        return ast.Module([ast.Expr(ast.Constant(text))], [])
    if module:
        undocumented(tree)
    return Plain().visit(tree)


def written(node: object) -> str:
    "A tree as text, the same in every Python (`ast.dump` and `ast.unparse` are not)."
    if isinstance(node, list):
        return f"[{','.join(map(written, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(k, getattr(node, k, None)) for k in node._fields if k not in ("ctx", "kind", "type_comment")]
    said = [f"{k}={written(v)}" for k, v in fields if v is not None and v != []]
    return f"{type(node).__name__}({','.join(said)})"


@cache
def as_hashed(text: str, module: bool) -> str:
    return written(plain(text, module))


@cache
def nodes(text: str, module: bool) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(plain(text, module)))


def cell_code(cell: dict) -> str:
    "A cell as it is hashed: what it does, whether it is left out, whether a semicolon hides its value."
    text = source(cell)
    return f"{left_out(text)} {text.rstrip().endswith(';')} {as_hashed(text, False)}"


@cache
def strings(text: str, module: bool) -> frozenset[str]:
    "The strings in code; a formatted one as a pattern."
    formatted = [n for n in nodes(text, module) if isinstance(n, ast.JoinedStr)]
    pieces = {id(v) for n in formatted for v in n.values}
    whole = [n.value for n in nodes(text, module) if isinstance(n, ast.Constant) and id(n) not in pieces]
    return frozenset({s for s in whole if isinstance(s, str)} | {pattern(n) for n in formatted})


def pattern(node: ast.JoinedStr) -> str:
    return "".join(v.value if isinstance(v, ast.Constant) else "*" for v in node.values)


# What code reaches


def module_file(name: str) -> Path | None:
    "The file of a module of ehrseq, or of plain code beside notebooks."
    if name.split(".")[0] != "ehrseq":
        return next((p for folder in BESIDE if (p := ROOT / folder / f"{name}.py").is_file()), None)
    path = ROOT.joinpath(*name.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def is_ours(name: str) -> bool:
    return name.split(".")[0] == "ehrseq" or module_file(name) is not None


def named(node: ast.AST, home: str) -> list[str]:
    "Modules that an import may mean, in a module of the package `home` (empty: in a notebook)."
    if isinstance(node, ast.Import):
        aliases = [a for a in node.names if is_ours(a.name)]
        return [a.name for a in aliases] + ["ehrseq" for a in aliases if "." in a.name and not a.asname]
    base = node.module or ""
    if node.level:
        above = home.split(".")[: len(home.split(".")) - node.level + 1]
        base = ".".join([*above, *base.split(".")]).rstrip(".")
    if not is_ours(base):
        return []
    return [f"{base}.{a.name}" if module_file(f"{base}.{a.name}") else base for a in node.names]


def spoken(text: str, home: str, lazy: bool) -> str | None:
    "The module that a string names: `ehrseq.encoders.behrt:BEHRT`, and in an `__init__` that imports late, `jobs`."
    if re.fullmatch(r"ehrseq(\.\w+)+(:\w+)?", text):
        name = text.split(":")[0]
        return name if module_file(name) else None
    if lazy and re.fullmatch(r"\.?\w+(\.\w+)*", text):
        name = f"{home}.{text.lstrip('.')}"
        return name if module_file(name) else None


@cache
def neighbours(text: str, module: bool, home: str = "", lazy: bool = False) -> set[str]:
    "The modules that code names. `forget` these where modules come and go."
    found = {s for t in strings(text, module) if (s := spoken(t, home, lazy))}
    for node in nodes(text, module):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= set(named(node, home))
    if any(re.fullmatch(r"(\.\./)+ehrseq/?", t) for t in strings(text, module)):  # the folder of them all
        found |= {module_name(p) for p in (ROOT / "ehrseq").rglob("*.py")}
    return found


def forget() -> None:
    neighbours.cache_clear()
    data.cache_clear()


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def reached(texts: list[str]) -> dict[str, str]:
    "Module: its text, of all modules that notebook cells reach, over however many others."
    waiting, found = {m for t in texts for m in neighbours(t, False)}, {}
    while waiting:
        name = waiting.pop()
        path = module_file(name)
        if name in found or path is None:
            continue
        found[name], package = path.read_text(encoding="utf-8"), path.name == "__init__.py"
        waiting |= neighbours(found[name], True, name if package else name.rpartition(".")[0], package)
    return found


@cache
def data(top: str) -> list[Path]:
    "Committed files and folders that code can name, below a folder of the repository."
    return [p for d in DATA if d.startswith(top) for p in sorted(ROOT.glob(d)) if not hidden(p, ROOT)]


@cache
def parts(text: str, module: bool) -> frozenset[str]:
    "The names of files and folders that may stand in the strings of code, with `*` for what is not known."
    found = {part for s in strings(text, module) for part in re.split(r"[/\\]", s)}
    return frozenset(p for p in found if len(re.sub(r"\.\w+$|[*?]", "", p)) > 2)


def data_named(names: frozenset[str], top: str) -> set[Path]:
    "The data that is named: a parameter file also without its ending."
    patterns = [n for n in names if re.search(r"[*?\[]", n)]
    return {
        p
        for p in data(top)
        if p.name in names
        or p.suffix == ".yaml"
        and p.stem in names
        or any(fnmatchcase(p.name, n) for n in patterns)
    }


@cache
def digest(path: Path, changed: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprints(path: Path) -> list[str]:
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(p, p.stat()) for p in files]
    return [f"{p.relative_to(ROOT).as_posix()} {digest(p, s.st_mtime_ns, s.st_size)}" for p, s in stats]


def made_with(path: Path) -> list[str]:
    "What a job's page is made with, and the jobs before it."
    if path.parent.name != "jobs":
        return []
    given, before = JOBS.get(path.stem, ({}, {}))
    earlier = [cell_code(c) for name in before for c in code_cells(read(path.with_stem(name)))]
    return [json.dumps([given, before], sort_keys=True), *earlier]


def is_benchmark(path: Path) -> bool:
    return "benchmarks" in path.resolve().relative_to(ROOT).parts


def came_from(path: Path) -> str:
    """A hash of what a notebook's outputs came from; of a benchmark, which takes hours,
    without the package: its results say of which commit they are."""
    cells = code_cells(read(path))
    texts = [source(c) for c in cells]
    modules = {} if is_benchmark(path) else reached(texts)
    found = data_named(frozenset().union(*(parts(t, False) for t in texts)), "")
    found |= data_named(frozenset().union(*(parts(t, True) for t in modules.values())), "ehrseq")
    code = [*(cell_code(c) for c in cells), *(f"{m}\n{as_hashed(modules[m], True)}" for m in sorted(modules))]
    lines = [line for p in sorted(found) for line in fingerprints(p)]
    return hashlib.sha256("\0".join([*code, *lines, *made_with(path)]).encode()).hexdigest()[:16]
