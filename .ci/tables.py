"""Write anew the tables that the house holds to the code: `python .ci/tables.py`, or `make tables`.

These are the table of parts and rooms in `nbs/design.ipynb`, and the tables `ALLOWED` in
`nbs/tests/house.ipynb` and `nbs/tests/types.ipynb`: faults of the style and of types that a module still
has. A longer table of faults is no way to pass a test: look at what `git diff` shows, and mend the code.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

NBS = Path(__file__).resolve().parents[1] / "nbs"
RATCHETS = ("tests/house.ipynb", "tests/types.ipynb")


def source(cell: dict) -> str:
    return "".join(cell["source"])


def write(name: str, begins: str, change) -> None:
    "Replace the text of the one cell of a notebook that begins so."
    path = NBS / name
    notebook = json.loads(path.read_text(encoding="utf-8"))
    (cell,) = [c for c in notebook["cells"] if source(c).startswith(begins)]
    cell["source"] = change(source(cell)).splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_rooms() -> None:
    "The rows of the parts: what stands between the head of the table and the folders that use the library."
    sys.path.insert(0, str(NBS / "tests"))
    from repository import rooms_table

    def changed(text: str) -> str:
        head, _, rest = text.partition("|---|---|\n")
        return f"{head}|---|---|\n{rooms_table()}\n{rest[rest.index('| `tutorials/`') :]}"

    write("design.ipynb", "## The house", changed)


def faults_now(name: str) -> str:
    "Return the table of a ratchet as it would be now: its notebook is run until it says so."
    notebook = json.loads((NBS / name).read_text(encoding="utf-8"))
    space: dict = {"__name__": "tables"}
    os.chdir((NBS / name).parent)
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        try:
            exec(compile(source(cell), cell["id"], "exec"), space)
        except AssertionError:
            pass  # the very tables that are out of date
        if "now" in space:
            return space["now"]
    raise SystemExit(f"{name} says no table of faults; an earlier cell failed.")


if __name__ == "__main__":
    write_rooms()
    for name in RATCHETS:
        table = faults_now(name)
        write(name, "ALLOWED = {", lambda _text, table=table: table)
        print(f"{name}: {table.count(': ') - 1} modules")
