"""Runs the toy recipe without a lock, as if the lock had failed.

usage: racing_run.py DATA OUT
"""

import contextlib
import sys

import pipelines.registry
import pipelines.run
from pipelines.recipe import parse_recipe
from tests.toy import RECIPE

if __name__ == "__main__":
    pipelines.registry.STAGES["toy"] = "tests.toy:STAGE"
    pipelines.run.finish = lambda run, listen=None: "none"  # type: ignore[assignment]
    pipelines.run.locked = lambda store: contextlib.nullcontext()  # type: ignore[assignment]
    data, out = sys.argv[1:]
    pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=data, out=out)
