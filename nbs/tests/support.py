"""What the tests of several chapters, and the benchmarks, share.

sys.path.insert(0, "../tests")
from support import shared_cohort
"""

import os
import sys
from pathlib import Path

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"  # beside the repository


def shared_cohort(name: str) -> Path | None:
    """Return the folder of a shared test cohort, or None where it is absent, which is printed.

    Cohorts lie in the folder that `EHRSEQ_DATA` names, by default in `../shared/data` beside the repository.
    With `CI=true`, an absent cohort raises `FileNotFoundError`.
    """
    folder = Path(os.getenv("EHRSEQ_DATA") or BESIDE) / name
    if folder.exists():
        return folder
    if os.getenv("CI") == "true":
        raise FileNotFoundError(f"{folder} is missing; set EHRSEQ_DATA.")
    for stream in {sys.stdout, sys.__stderr__}:  # the test run counts these lines on stderr
        print(f"skipped: {name} is not in {folder.parent}", file=stream)
    return None
