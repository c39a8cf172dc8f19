"""Saved outputs carry a hash of what they came from, in a notebook's metadata: `{"ehrseq": {"outputs": …}}`.

`make outputs` executes the notebooks whose outputs came from other code or data than what is here.
`python .ci/outputs.py save PATH …` executes those named.
`python .ci/outputs.py check` names the old ones, and fails if there are any.
`python .ci/outputs.py record PATH …` says of a benchmark, which takes hours, that its outputs are those of
its code and results as they are now; for a person who has looked."""

import base64
import io
import os
import re
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import origin
from origin import JOBS, came_from, code_cells, is_benchmark, left_out, read

STEADY = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONHASHSEED": "0"}
PICTURES = {"PLOTLY_RENDERER": "png"}
STRICT = {"IN_TEST": "", "CI": "true"}  # in full; a missing cohort is an error
WIDGET = "application/vnd.jupyter.widget-view+json"
COLOURS = 160  # of a picture: it stays light
TEMPORARY = re.compile(rf"{re.escape(tempfile.gettempdir())}/(?:tmp\w{{8}}|ipykernel_\d+)\b")
BAR = re.compile(r"\d+%\s*\|.*\[.*\]|\d+it \[.*\]")  # of tqdm


class Refused(Exception):
    "Outputs that are not saved, and why."


def notebooks() -> list[Path]:
    "All notebooks of the repository."
    found = sorted((origin.ROOT / "nbs").rglob("*.ipynb"))
    return [p for p in found if not origin.hidden(p, origin.ROOT)]


def stale() -> list[Path]:
    "Notebooks whose saved outputs came from other code or data than what is here."
    return [p for p in notebooks() if is_stale(p)]


def is_stale(path: Path) -> bool:
    notebook = read(path)
    if not any(c["outputs"] for c in code_cells(notebook)):
        return False
    return notebook["metadata"].get("ehrseq", {}).get("outputs") != came_from(path)


# Executing


def environment(folder: Path) -> dict[str, str]:
    "Of a kernel in that folder: this repository's package, shared data by a relative path, one thread."
    data = Path(os.getenv("EHRSEQ_DATA") or origin.ROOT.parent / "shared" / "data")
    ours = {"PYTHONPATH": str(origin.ROOT), "EHRSEQ_DATA": os.path.relpath(data.absolute(), folder)}
    return os.environ | STEADY | PICTURES | STRICT | ours


def run(notebook, folder: Path) -> None:
    "Execute a notebook in place, in that folder, as nbdev's tests would, but in full."
    from nbclient import NotebookClient

    texts = [c.source for c in notebook.cells]
    for cell in notebook.cells:
        if cell.cell_type == "code" and left_out(cell.source):
            cell.source = ""
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--IPKernelApp.log_level=40"],
    )
    client.execute(env=environment(folder))
    for cell, text in zip(notebook.cells, texts):
        cell.source = text


def with_parameters(notebook, given: dict):
    "A job's notebook with values of its parameters, in a cell after theirs, as papermill would."
    import nbformat

    if given:
        at = next(i for i, c in enumerate(notebook.cells) if "parameters" in c.metadata.get("tags", []))
        text = "\n".join(f"{k} = {v!r}" for k, v in given.items())
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(text))
    return notebook


def executed(path: Path):
    "The executed notebook: where it lies; a job in a folder of its own, after the jobs that it needs."
    import nbformat

    if path.parent.name != "jobs":
        notebook = nbformat.read(path, 4)
        run(notebook, path.parent)
        return notebook
    given, before = JOBS[path.stem]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for earlier, values in before.items():
            run(with_parameters(nbformat.read(path.with_stem(earlier), 4), values), folder)
        notebook = with_parameters(nbformat.read(path, 4), given)
        run(notebook, folder)
    for output in (o for c in notebook.cells for o in c.get("outputs", [])):
        each_text(output, lambda text: text.replace(f"{folder}/", ""))
    return notebook


# What is kept of an output


def each_text(output, change) -> None:
    "Replace the texts of an output, pictures aside."
    if "text" in output:
        output["text"] = change(output["text"])
    for kind, value in output.get("data", {}).items():
        if isinstance(value, str) and not kind.startswith("image/"):
            output["data"][kind] = change(value)


def settled(text: str) -> str:
    "What a terminal would show at the end, without progress bars."
    lines = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    return "\n".join(line for line in lines if not BAR.search(line))


def without_temporary(text: str) -> str:
    "The text, without the names of temporary folders, which differ from run to run."
    return TEMPORARY.sub("…", text)


def light(picture: str) -> str:
    "A picture (base64 of PNG) in few colours."
    from PIL import Image

    few = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB").quantize(COLOURS)
    few.save(to := io.BytesIO(), "png", optimize=True)
    return base64.b64encode(to.getvalue()).decode()


def kept(outputs: list) -> list:
    "Outputs without bars and widgets, a stream in one piece, pictures light."
    found = []
    for output in outputs:
        if WIDGET in output.get("data", {}):
            continue
        if output["output_type"] == "stream" and found and found[-1].get("name") == output["name"]:
            found[-1]["text"] += output["text"]
        else:
            found.append(output)
    for output in found:
        if output["output_type"] == "stream":
            output["text"] = settled(output["text"])
        if output.get("name") == "stderr":  # a warning names the file of the package that it comes from
            output["text"] = output["text"].replace(f"{origin.ROOT}/", "")
        each_text(output, without_temporary)
        if picture := output.get("data", {}).get("image/png"):
            output["data"]["image/png"] = light(picture)
    return [o for o in found if o["output_type"] != "stream" or o["text"].strip()]


def machine_paths(outputs: list) -> list[str]:
    "Absolute paths of this machine in outputs."
    tops = {origin.ROOT, origin.ROOT.parent, Path.home(), Path(tempfile.gettempdir()), Path(sys.prefix)}
    tops = {str(t) for p in tops for t in (p, p.resolve()) if len(t.parts) > 1}
    paths = re.compile(rf"(?<![\w.…/])(?:{'|'.join(map(re.escape, sorted(tops)))})(?![\w-])[^\s\"'<>)]*")
    texts = []
    for output in outputs:
        pictureless = {k: v for k, v in output.get("data", {}).items() if not k.startswith("image/")}
        texts.append(str(output.get("text", "")) + " ".join(str(v) for v in pictureless.values()))
    return [found for text in texts for found in paths.findall(text)]


def cleaned(notebook):
    "As nbdev_clean leaves it."
    from nbdev.clean import clean_nb

    settings = origin.settings()
    allowed = [settings[k].split() for k in ("allowed_metadata_keys", "allowed_cell_metadata_keys")]
    clean_nb(notebook, False, *allowed)
    return notebook


def refuse(cell_id: str, outputs: list) -> None:
    "Raise for outputs that no page is to show."
    if paths := machine_paths(outputs):
        raise Refused(f"cell {cell_id}: its output tells a path of this machine: {paths[0]}")
    lines = [line for o in outputs for line in o.get("text", "").split("\n")]
    if missing := [line for line in lines if line.startswith("skipped:")]:
        raise Refused(f"cell {cell_id}: this machine lacks what it needs: {missing[0]}")


def save(path: Path) -> bool:
    "Execute a notebook and save its outputs; whether its file changed. A failing cell leaves it."
    import nbformat

    origin.forget()
    made_from = came_from(path)
    done = {c.id: kept(c.outputs) for c in code_cells(executed(path))}
    for cell_id, outputs in done.items():
        refuse(cell_id, outputs)
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, 4)
    for cell in code_cells(notebook):
        cell.outputs = done.get(cell.id, cell.outputs)
    notebook.metadata["ehrseq"] = {"outputs": made_from}
    after = nbformat.writes(cleaned(notebook)) + "\n"
    if after != before:
        write(path, after)
    return after != before


def record(path: Path) -> None:
    "Take the outputs of a benchmark as they are for those of its code and results."
    import nbformat

    if not is_benchmark(path):
        raise Refused(f"{path.name} is no benchmark: save it.")
    notebook = nbformat.read(path, 4)
    notebook.metadata["ehrseq"] = {"outputs": came_from(path)}
    write(path, nbformat.writes(cleaned(notebook)) + "\n")


def write(path: Path, text: str) -> None:
    "All or nothing."
    beside = path.with_suffix(".tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def save_all(paths: list[Path]) -> int:
    "Save one after the other; what fails is named, and how many did is returned."
    failed = 0
    for path in paths:
        start, said = time.perf_counter(), "unchanged"
        try:
            said = "saved" if save(path) else said
        except Exception as e:  # of any kind: the others go on
            failed += 1
            said = f"FAILED, left as it was: {type(e).__name__}: {str(e)[-2000:]}"
        print(f"{path.relative_to(origin.ROOT)}  {time.perf_counter() - start:.0f} s  {said}", flush=True)
    return failed


def main(command: str, *names: str) -> int:
    if command == "check":
        found = stale()
        for path in found:
            print(f"outputs older than code or data: {path.relative_to(origin.ROOT)}")
        return bool(found)
    named = [Path(n).resolve() for n in names]
    if command == "record":
        for path in named:
            record(path)
        return 0
    if command == "save":
        return save_all(named or [p for p in stale() if not is_benchmark(p)]) > 0
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or [""])))
