"""The repository as the house tests see it: its notebooks, its modules and which chapter exports which."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NBS, PACKAGE = ROOT / "nbs", ROOT / "ehrseq"
PARTS = sorted(p.name for p in NBS.glob("[0-9]_*"))


def hidden(path: Path) -> bool:
    return any(name.startswith((".", "_")) for name in path.relative_to(NBS).parts)


@cache
def notebooks() -> dict[Path, dict]:
    "Return every notebook, by its path below `nbs`."
    found = [p for p in sorted(NBS.rglob("*.ipynb")) if not hidden(p)]
    return {p.relative_to(NBS): json.loads(p.read_text(encoding="utf-8")) for p in found}


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code_cells(notebook: dict) -> list[dict]:
    return [c for c in notebook["cells"] if c["cell_type"] == "code"]


def exported(notebook: dict) -> dict[str, str]:
    "Return the exported cells of a notebook: id → code, without the line that exports it."
    directive = re.compile(r"#\|\s*export(s|i)?\b.*\n")
    cells = {c["id"]: source(c) for c in code_cells(notebook)}
    return {
        cell_id: directive.sub("", text, count=1) for cell_id, text in cells.items() if directive.match(text)
    }


@cache
def chapters() -> dict[str, Path]:
    "Return module → its notebook, below `nbs`: `data.events` → `1_data/12_events.ipynb`."
    found = {}
    for path, notebook in notebooks().items():
        for cell in notebook["cells"]:
            if named := re.match(r"#\|\s*default_exp (\S+)", source(cell)):
                found[named.group(1)] = path
    return found


def part(module: str) -> str:
    "Return the folder of a module's chapter; empty for a chapter that lies beside the parts."
    path = chapters()[module]
    return "" if len(path.parts) == 1 else path.parts[0]


def file_of(module: str) -> Path:
    return PACKAGE / (module.replace(".", "/") + ".py")


@cache
def text_of(module: str) -> str:
    return file_of(module).read_text(encoding="utf-8")


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(text_of(module))


def imported(node: ast.AST, package: list[str]) -> list[str]:
    "Return what an import statement may name in `ehrseq`, in a module of that package."
    if isinstance(node, ast.Import):
        return [a.name.removeprefix("ehrseq.") for a in node.names if a.name.startswith("ehrseq.")]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        above = package[: len(package) - node.level + 1]
        base = ".".join([*above, *([node.module] if node.module else [])])
    elif node.module.split(".")[0] == "ehrseq":
        base = node.module.removeprefix("ehrseq").lstrip(".")
    else:
        return []
    return [base] if base in chapters() else [f"{base}.{a.name}".lstrip(".") for a in node.names]


def imports(module: str) -> set[str]:
    "Return the modules of ehrseq that a module imports, wherever in its code."
    package = module.split(".")[:-1]
    found = {name for node in ast.walk(tree_of(module)) for name in imported(node, package)}
    return {name for name in found if name in chapters()} - {module}


def called(node: ast.AST) -> str:
    "Return the name of what a call calls: `f` of `f(x)` and of `a.f(x)`; empty if it is no call."
    if not isinstance(node, ast.Call):
        return ""
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def rooms() -> dict[str, list[str]]:
    "Return part → its chapters in reading order; `` → the chapters that lie beside the parts."
    beside = sorted(path.as_posix() for path in chapters().values() if len(path.parts) == 1)
    inside = {folder: [p.as_posix() for p in notebooks() if p.parts[0] == folder] for folder in PARTS}
    return {"": beside, **inside}


def linked(path: str) -> str:
    "Return a link to a chapter, by its name without number: `[events](1_data/12_events.ipynb)`."
    name = re.sub(r"^\d+_", "", Path(path).stem).replace("_", " ")
    return f"[{name}]({path})"


def rooms_table() -> str:
    "Return the rows of the parts of the table of rooms, as the folders have it."
    rows = []
    for folder, (first, *others) in rooms().items():
        if folder:
            name = re.sub(r"^\d+_", "", folder)
            rows.append(f"| [`{folder}/`]({first}) → `ehrseq.{name}` | {' · '.join(map(linked, others))} |")
        else:
            rows.append(f"| beside the parts → `ehrseq` | {' · '.join(map(linked, [first, *others]))} |")
    return "\n".join(rows)
