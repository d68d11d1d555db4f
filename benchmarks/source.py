"""What it costs to know the source by its content: an audit with and without.

    python benchmarks/source.py [--rows 1000000] [--classes 100] [--images 4000] [--repeats 3]

Makes shards of made-up predictions, and shards of pictures of a camera's size, and runs an audit of
each in processes of its own, turn by turn: as it is, and with the verification taken out (contents
not hashed when a run begins, files opened by pyarrow itself, no check before the product). Prints
the times of each, their difference as a share of the run, and what the parts cost alone: the
fingerprints of all files, beside a bare read of the same bytes.
"""

import argparse
import functools
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.confident import make_shards  # noqa: E402

SIDE = 256
RECIPE = """
stages = ["source", "infer", "confident", "decide", "dataset"]
[data]
absent_classes = "allow"
"""


def make_pictures(folder: Path, n: int) -> None:
    """Write shards of 500 JPEGs each, smooth enough to be as small as photographs are."""
    from PIL import Image

    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for shard, start in enumerate(range(0, n, 500)):
        size = min(500, n - start)
        rows = []
        for _ in range(size):
            coarse = rng.integers(0, 256, (16, 16, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            out = io.BytesIO()
            picture.save(out, "JPEG", quality=90)
            rows.append({"bytes": out.getvalue(), "path": None})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(rows, kind), "label": rng.integers(0, 4, size)})
        pq.write_table(table, folder / f"part-{shard:05d}.parquet", row_group_size=100)


def without_verification() -> None:
    """Take the verification out of this process."""
    import pipelines.run
    from pipelines.storage import frame, source
    from pipelines.storage.content import Content
    from pipelines.storage.store import open_store

    nothing = Content(0, np.empty(0, np.uint64))
    source.read_content = lambda file: nothing
    frame.open_foreign = lambda ref, size=0: open_store(ref.uri).open_read(ref.name)
    pipelines.run.check_unchanged = lambda run: None


def one(data: str, verified: bool) -> None:
    """Run an audit in this process and print its seconds, by the clock and of processors."""
    import pipelines.run
    from pipelines.recipe import parse_recipe

    if not verified:
        without_verification()
    recipe = parse_recipe(RECIPE, name="audit")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter(), time.process_time()
        pipelines.run.run(recipe, data=data, out=f"{folder}/out")
        took = time.perf_counter() - began[0], time.process_time() - began[1]
        print(json.dumps(took))


def timed(data: Path, verified: bool) -> list[float]:
    command = [sys.executable, __file__, "--one", str(data), *(["--verified"] if verified else [])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    took: list[float] = json.loads(done.stdout.splitlines()[-1])
    return took


def parts(data: Path) -> tuple[float, float]:
    """Return the seconds of a bare read of all bytes, and of reading and fingerprinting them."""
    from pipelines.storage.content import READ_BYTES, read_content

    def bare() -> None:
        for path in sorted(data.iterdir()):
            with path.open("rb", buffering=0) as file:
                while file.read(READ_BYTES):
                    pass

    def hashed() -> None:
        for path in sorted(data.iterdir()):
            with path.open("rb", buffering=0) as file:
                read_content(file)

    best = []
    for work in (bare, hashed):
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)
        best.append(min(seconds))
    return best[0], best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one")
    parser.add_argument("--verified", action="store_true")
    args = parser.parse_args()
    if args.one:
        one(args.one, args.verified)
        return
    with tempfile.TemporaryDirectory() as folder:
        sets = {
            f"predictions, {args.rows:,} × {args.classes}": functools.partial(
                make_shards, n=args.rows, n_classes=args.classes
            ),
            f"pictures, {args.images:,} JPEGs": functools.partial(make_pictures, n=args.images),
        }
        for i, (name, make) in enumerate(sets.items()):
            data = Path(folder, str(i))
            make(data)
            n_bytes = sum(path.stat().st_size for path in data.iterdir())
            bare, hashed = parts(data)
            print(f"{name}: {n_bytes / 2**20:,.0f} MiB in {len(list(data.iterdir()))} shards")
            print(
                f"  bare read {bare:.3f} s, read and fingerprinted {hashed:.3f} s (one thread, "
                f"{n_bytes / hashed / 1e9:.1f} GB/s)"
            )
            pairs = np.array(
                [[timed(data, verified) for verified in (True, False)] for _ in range(args.repeats)]
            )
            for kind, taken in zip(("clock", "processors"), pairs.T, strict=True):
                verified, without = taken
                share = np.median(verified / without) - 1
                best = verified.min() / without.min() - 1
                print(
                    f"  audit without verification {np.median(without):.2f} s, with it "
                    f"{np.median(verified):.2f} s by the {kind} (medians of {args.repeats}); "
                    f"of a pair {share:+.1%}, of the best {best:+.1%}"
                )


if __name__ == "__main__":
    main()
