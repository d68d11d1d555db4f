"""Runs the toy recipe on an object store under a short lease, slowly enough to be stopped in it.

usage: leasing.py DATA OUT LEASE_S NAP_S
"""

import sys
import time

import pipelines.lock
import pipelines.registry
import pipelines.run
from pipelines.commit import Record
from pipelines.errors import LockedError
from pipelines.recipe import parse_recipe
from pipelines.work import Task, do_map
from tests.toy import RECIPE

if __name__ == "__main__":
    data, out, lease_s, nap_s = sys.argv[1:]
    pipelines.lock.LEASE_S = float(lease_s)
    pipelines.registry.STAGES["toy"] = "tests.toy:STAGE"
    pipelines.run.finish = lambda run, listen=None: "none"  # type: ignore[assignment]

    def slow(task: Task) -> Record:
        print(task.stage, task.position, task.shard, flush=True)
        time.sleep(float(nap_s))
        return do_map(task)

    pipelines.run.do_map = slow
    try:
        pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=data, out=out)
    except LockedError as err:
        print(err, flush=True)
        sys.exit(3)
