"""Long fuzzing: ``make fuzz``, or ``python -m tests.fuzz parquet=10000 recipes=5000``.

With a number behind a colon, seeds from there on: ``parquet=1000:70000``.
"""

import re
import sys
import time

from tests.fuzz.harness import MEMORY, fuzz


def main() -> None:
    """Try all that is asked for; ends with code 1 if anything came out that should not."""
    asked = []
    for argument in sys.argv[1:] or ["parquet=10000", "recipes=5000", "pictures=5000"]:
        if (said := re.fullmatch(rf"({'|'.join(MEMORY)})=(\d+)(?::(\d+))?", argument)) is None:
            sys.exit(f"fuzz: {' or '.join(f'{kind}=N[:FIRST]' for kind in MEMORY)}, not {argument}")
        asked.append((said[1], int(said[2]), int(said[3] or 0)))
    n_bad = 0
    for kind, n, first in asked:
        began = time.monotonic()
        tried = fuzz(kind, first, n)
        n_bad += len(tried.bad)
        print(
            f"{kind}: {tried.n_ok} read, {tried.n_refused} refused, {len(tried.bad)} bad; peak "
            f"{tried.peak_kb / 1000:.0f} MB, slowest {tried.slowest_s:.1f} s; "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
        for seed, what in sorted(tried.bad.items()):
            print(f"  {kind} {seed}: {what}", flush=True)
    sys.exit(1 if n_bad else 0)


if __name__ == "__main__":
    main()
