"""`make test`: modules equal notebooks, README equals the index, every notebook runs, the explorer's page answers. `make readme` writes the README."""
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

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
# Two notebooks at once, one thread each: on two cores faster than one after the other.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "TQDM_MININTERVAL": "5"}
FORKED = get_context("forkserver")      # each notebook in a process of its own, forked from one that has imported what most of them import
IMPORTED = ["nbdev.test", "ehrseq.runs.command_line", "ehrseq.explore.explorer", "ehrseq.runs.leaderboard", "accelerate", "papermill", "peft", "plotly.express", "sklearn.ensemble", "torch._dynamo", "torchmetrics", "torchsurv.loss.cox", "umap"]


def readme():
    "README.md as made from `nbs/index.ipynb`, hidden cells left out and links seen from the top."
    from nbconvert import MarkdownExporter
    import nbformat
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", 4)
    notebook.cells = [c for c in notebook.cells if not c.source.startswith("#| hide")]
    text = MarkdownExporter().from_notebook_node(notebook)[0].strip() + "\n"
    return re.sub(r"\]\((?!http|#)([^)]+\.(?:ipynb|md|png))\)", r"](nbs/\1)", text)


def snapshot():
    files = [*ROOT.glob("ehrseq/**/*.py"), *(p for p in ROOT.glob("nbs/**/*.ipynb") if ".ipynb_checkpoints" not in p.parts)]
    return {str(p.relative_to(ROOT)): p.read_bytes() for p in files}


def out_of_step():
    "Files that a clean re-export changes, adds or removes."
    before = snapshot()
    for p in ROOT.glob("ehrseq/**/*.py"): p.unlink()
    for command in ("nbdev_export", "nbdev_clean"): subprocess.run([BIN / command], cwd=ROOT, check=True)
    after = snapshot()
    changed = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    return changed + (["README.md (make readme)"] if (ROOT / "README.md").read_text() != readme() else [])


def notebooks():
    "Every chapter, tutorial and job, slowest first so that the two workers end together."
    found = [p for p in (ROOT / "nbs").rglob("*.ipynb") if not any(s.startswith(("_", ".")) for s in p.relative_to(ROOT).parts)]
    found = [p for p in found if not any((d / ".notest").exists() for d in p.parents if d != ROOT.parent)]
    slow = ("30_jobs", "bad_input", "30_train", "60_contract", "26_omop", "40_phenotypes", "45_sweep", "50_leaderboard", "04_on_a_rented_gpu", "20_downstream", "40_forecast", "20_baselines")
    return sorted(found, key=lambda p: (slow.index(p.stem) if p.stem in slow else len(slow), p.name))


def test(path, log):
    "In a process of its own: run a notebook; what it says goes to a file."
    for stream in (1, 2): os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(path.parent)
    from nbdev.test import test_nb
    sys.exit(not test_nb(path, skip_flags=["slow", "gpu"])[0])


def run(path):
    start = time.perf_counter()
    with tempfile.NamedTemporaryFile("r") as log:
        process = FORKED.Process(target=test, args=(path, log.name))
        process.start(); process.join()
        said, ok = log.read(), process.exitcode == 0
    skipped = [line for line in said.splitlines() if line.startswith("skipped:")]
    print(f"{'ok  ' if ok else 'FAIL'} {path.relative_to(ROOT)}  {time.perf_counter() - start:.0f} s", *skipped, sep="\n       " if skipped else "", flush=True)
    if not ok: print(said[-10_000:], flush=True)
    return ok, len(skipped)


def browser():
    "Whether the explorer answers in a real browser; its steps are printed when it is done."
    done = subprocess.run([sys.executable, ROOT / ".ci" / "browser.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    print(done.stdout, end="", flush=True)
    return done.returncode == 0


def main():
    os.environ.update(ENVIRONMENT)
    FORKED.set_forkserver_preload(IMPORTED)
    changed = out_of_step()
    print("modules, notebooks and README agree" if not changed else "FAIL out of step (re-exported now; look, and commit): " + ", ".join(changed), flush=True)
    paths = [p for p in notebooks() if p.stem != "10_explore_the_map" or not shutil.which("chromium")]      # with a browser it is run in JupyterLab
    with ThreadPoolExecutor(2) as pool:
        tried = pool.submit(browser)
        results = list(pool.map(run, paths))
        page = tried.result()
    ran, expected = len(results), len(subprocess.run(["git", "ls-files", "nbs/*.ipynb", "nbs/**/*.ipynb"], cwd=ROOT, capture_output=True, text=True).stdout.split())
    print(f"{ran} notebooks ran ({expected} in the repository, benchmarks included)")
    passed = sum(ok for ok, _ in results) + (not changed) + page
    failed = ran + 2 - passed + (ran == 0)
    print(f"{passed} passed, {failed} failed, {sum(n for _, n in results)} skipped")
    return failed > 0


if __name__ == "__main__":
    if "readme" in sys.argv[1:]: (ROOT / "README.md").write_text(readme())
    else: sys.exit(main())
