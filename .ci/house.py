"""What `make test` runs: modules equal notebooks, README equals the index, code is in one style, every
notebook runs, and the explorer's page answers.

`python .ci/house.py readme` writes the README. `python .ci/house.py format` puts the code in style.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from posixpath import normpath

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NBS = ROOT / "nbs"
# Two notebooks at once, one thread each: on two cores faster than one after the other.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_MININTERVAL": "5"}
# Each notebook has a process of its own, forked from one that has imported what most of them import.
FORKED = get_context("forkserver")
IMPORTED = """
nbdev.test ehrseq.runs.jobs ehrseq.explore.explorer accelerate papermill peft plotly.express
sklearn.ensemble torch._dynamo torchmetrics torchsurv.loss.cox umap
""".split()
# The slowest notebooks first, so that both workers end together; by name, without number.
SLOW = """
bad_input command_line compare attacks train pretrain sequences seams synthea omop contract phenotypes privacy sweep
leaderboard on_a_rented_gpu downstream forecast baselines""".split()
STYLED = ["nbs", "setup.py", ".ci/house.py", ".ci/origin.py", ".ci/outputs.py", ".ci/tables.py"]
LINK = re.compile(r"\]\((?!\w+:|#|/)([^)\s]+)\)")  # a relative one


# What is made from the notebooks


def readme() -> str:
    "Return README.md as made from `nbs/index.ipynb`: hidden cells left out, links seen from the top."
    import nbformat
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(NBS / "index.ipynb", 4)
    notebook.cells = [c for c in notebook.cells if not c.source.startswith("#| hide")]
    text = MarkdownExporter().from_notebook_node(notebook)[0].strip() + "\n"
    return LINK.sub(lambda m: f"]({normpath('nbs/' + m.group(1))})", text)


def snapshot() -> dict[str, bytes]:
    "Return what export and cleaning may change, sub-packages and data files of the package included."
    files = [p for p in (ROOT / "ehrseq").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    files += [p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return {str(p.relative_to(ROOT)): p.read_bytes() for p in files}


def out_of_step() -> list[str]:
    "Return the files that a clean re-export changes, adds or removes."
    before = snapshot()
    for path in (ROOT / "ehrseq").rglob("*.py"):
        path.unlink()
    for command in ("nbdev_export", "nbdev_clean"):
        subprocess.run([BIN / command], cwd=ROOT, check=True)
    after = snapshot()
    changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    if (ROOT / "README.md").read_text(encoding="utf-8") != readme():
        changed.append("README.md (make readme)")
    return changed


# Style


def ruff(*arguments: str) -> bool:
    return subprocess.run([BIN / "ruff", *arguments, *STYLED], cwd=ROOT).returncode == 0


def in_style() -> bool:
    "Whether notebooks and tools are formatted, and ruff finds no fault; what it finds is printed."
    checks = [ruff("check", "--quiet", "--output-format", "concise"), ruff("format", "--check", "--quiet")]
    return all(checks)


def put_in_style() -> bool:
    "Format, and mend what ruff can mend; whether nothing is left."
    ruff("check", "--quiet", "--fix")
    ruff("format", "--quiet")
    return in_style()


# Notebooks


def is_tested(path: Path) -> bool:
    "Whether tests run a notebook: not in a folder with `.notest`, and not hidden."
    inside = path.relative_to(NBS)
    if any(name.startswith(("_", ".")) for name in inside.parts):
        return False
    return not any((NBS / folder / ".notest").exists() for folder in inside.parents)


def place(path: Path) -> tuple[int, str]:
    "Return by what notebooks are ordered: the slow ones first."
    name = re.sub(r"^\d+_", "", path.stem)
    return (SLOW.index(name) if name in SLOW else len(SLOW), path.name)


def notebooks() -> list[Path]:
    "Return every notebook that tests run. With a browser, the explorer's tutorial runs in JupyterLab."
    found = [path for path in NBS.rglob("*.ipynb") if is_tested(path)]
    if shutil.which("chromium"):
        found = [path for path in found if path.stem != "10_explore_the_map"]
    return sorted(found, key=place)


def test(path: Path, log: str) -> None:
    "In a process of its own, run a notebook; what it says goes to a file."
    for stream in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(path.parent)
    from nbdev.test import test_nb

    sys.exit(not test_nb(path, skip_flags=["slow", "gpu"])[0])


def run(path: Path) -> tuple[bool, int]:
    "Run a notebook and print how it went; return whether it passed, and how many cohorts it missed."
    start = time.perf_counter()
    with tempfile.NamedTemporaryFile("r") as log:
        process = FORKED.Process(target=test, args=(path, log.name))
        process.start()
        process.join()
        said, ok = log.read(), process.exitcode == 0
    skipped = [line for line in said.splitlines() if line.startswith("skipped:")]
    seconds = time.perf_counter() - start
    lines = [f"{'ok  ' if ok else 'FAIL'} {path.relative_to(ROOT)}  {seconds:.0f} s", *skipped]
    print("\n       ".join(lines), flush=True)
    if not ok:
        print(said[-10_000:], flush=True)
    return ok, len(skipped)


def browser() -> bool:
    "Whether the explorer answers in a real browser; its steps are printed when it is done."
    command = [sys.executable, ROOT / ".ci" / "browser.py"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    print(done.stdout, end="", flush=True)
    return done.returncode == 0


def committed() -> int:
    "Return how many notebooks the repository has."
    command = ["git", "ls-files", "nbs/*.ipynb", "nbs/**/*.ipynb"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return len(listed.stdout.split())


# The test run


def checked() -> list[bool]:
    "Whether modules and README are those of the notebooks, and whether the code is in style."
    changed, styled = out_of_step(), in_style()
    if changed:
        print(f"FAIL out of step (re-exported now; look, and commit): {', '.join(changed)}", flush=True)
    else:
        print("modules, notebooks and README agree", flush=True)
    print("code is in style" if styled else "FAIL style (make format)", flush=True)
    return [not changed, styled]


def main() -> int:
    "Run everything; return 1 if something failed."
    os.environ.update(ENVIRONMENT)
    FORKED.set_forkserver_preload(IMPORTED)
    passed = checked()
    paths = notebooks()
    with ThreadPoolExecutor(2) as pool:
        page = pool.submit(browser)
        results = list(pool.map(run, paths))
        passed.append(page.result())
    passed += [ok for ok, _ in results]
    failed = passed.count(False) + (not paths)  # no notebook found is a failure, too
    skipped = sum(n for _, n in results)
    print(f"{len(paths)} notebooks ran ({committed()} in the repository, benchmarks included)")
    print(f"{passed.count(True)} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


def write_readme() -> int:
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
    return 0


COMMANDS = {
    "test": main,
    "readme": write_readme,
    "format": lambda: int(not put_in_style()),
}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1] if len(sys.argv) > 1 else "test"]())
