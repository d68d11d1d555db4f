"""Runs the toy recipe and dies at a named point of a commit, as `kill -9` would.

usage: crashing_run.py DATA OUT POINT SHARD STEP
"""

import os
import signal
import sys
from functools import partial

import pipelines.registry
import pipelines.run
from pipelines.core.commit import Record
from pipelines.core.work import Task, do_map
from pipelines.recipe import parse_recipe
from tests.toy import RECIPE


def main(data: str, out: str, point: str, shard: int, step: int) -> None:
    pipelines.registry.STAGES["toy"] = "tests.toy:STAGE"
    pipelines.run.finish = lambda run, listen=None: "none"  # type: ignore[assignment]

    def die(reached: str) -> None:
        if reached == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def crashing(task: Task) -> Record:
        here = task.stage == "toy" and task.shard == shard and task.position == step
        return do_map(task, crash=die) if here else do_map(task)

    if point != "none":
        pipelines.run.do_map = partial(crashing)
    pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=data, out=out)


if __name__ == "__main__":
    data, out, point, shard, step = sys.argv[1:]
    main(data, out, point, int(shard), int(step))
