"""Runs the toy recipe on an object store under a short lease, and stops itself in it.

It stops before its work on the last of AFTER shards, with no request of a shard on its way: what
was sent before a stop arrives after it, which no look at the epochs can prevent.

usage: leasing.py DATA OUT LEASE_S AFTER
"""

import os
import signal
import sys
import threading
import time

import pipelines.core.lock
import pipelines.registry
import pipelines.run
from pipelines.core.commit import Record
from pipelines.core.work import Task, do_map
from pipelines.errors import LockedError
from pipelines.recipe import parse_recipe
from tests.toy import RECIPE


def stop_until_woken() -> None:
    """Stop the process, and do nothing before that: a signal needs time to reach all threads."""
    seen = time.monotonic()
    os.kill(os.getpid(), signal.SIGSTOP)
    while (now := time.monotonic()) - seen < 1.0:
        seen = now
        time.sleep(0.01)


if __name__ == "__main__":
    data, out, lease_s, after = sys.argv[1:]
    pipelines.core.lock.LEASE_S = float(lease_s)
    pipelines.registry.STAGES["toy"] = "tests.toy:STAGE"
    pipelines.run.finish = lambda run, listen=None: "none"  # type: ignore[assignment]

    one_at_a_time, left = threading.Lock(), iter(range(int(after) - 1, -1, -1))

    def stop_in_time(task: Task) -> Record:
        with one_at_a_time:
            if next(left, None) == 0:
                stop_until_woken()
            return do_map(task)

    pipelines.run.do_map = stop_in_time
    try:
        pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=data, out=out)
    except LockedError as err:
        print(err, flush=True)
        sys.exit(3)
