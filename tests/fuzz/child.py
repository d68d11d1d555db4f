"""The process in which cases are tried: it may die, and whoever started it sees of which one.

usage: python -m tests.fuzz.child KIND FIRST END FOLDER MEMORY

Prints a line of JSON before and after each case.
"""

import importlib
import json
import re
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

from tests.memory import forget_peak, peak_kb

BATCH = 250
OURS = re.compile(r"Traceback \(most recent call|fault of labelops")


def outcome(module: Any, made: Any, folder: Path) -> dict[str, Any]:
    """Try a case; say what came of it."""
    from pipelines.errors import LabelopsError, UnforeseenError

    try:
        module.work(made, folder)
    except UnforeseenError as err:
        return {"bad": str(err)[:600], "trace": traceback.format_exc()[-3000:]}
    except LabelopsError as err:
        if OURS.search(str(err)) or not str(err):
            return {"bad": f"a message of ours was expected, got {str(err)[:600]!r}"}
        return {"refused": str(err)[:200]}
    except BaseException as err:
        what = f"{type(err).__name__}: {str(err)[:400]}"
        return {"bad": what, "trace": traceback.format_exc()[-3000:]}
    return {"ok": True}


def main() -> None:
    """Work through the cases."""
    kind, first, end, folder, memory = sys.argv[1:]
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module = importlib.import_module(f"tests.fuzz.{kind}")
    module.seeds()
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    for start in range(int(first), int(end), BATCH):
        print(json.dumps({"batch": start}), flush=True)
        for seed, made in module.batch(range(start, min(start + BATCH, int(end)))):
            print(json.dumps({"begin": seed}), flush=True)
            forget_peak()
            began = time.monotonic()
            found = outcome(module, made, Path(folder))
            found |= {"seed": seed, "s": round(time.monotonic() - began, 3), "peak_kb": peak_kb()}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
