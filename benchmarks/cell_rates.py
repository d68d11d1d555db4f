"""How fast a linear head learns from shards by each loss for missing positives, beside plain BCE.

    python benchmarks/cell_rates.py [--items 1000000] [--classes 80] [--features 512]
        [--losses an em …] [--rounds 1] [--folder FOLDER]

Shards of features and lists of classes are written to FOLDER (a temporary one otherwise) and read
row group by row group; linear heads are trained on them for one epoch, in batches of 256, by AdamW,
on one thread. *plain* is `binary_cross_entropy_with_logits`; the losses are as in the middle of a
training, with everything at work that they do then; what a loss sets up once a training counts by
the share of an epoch. Every loss has a process of its own, in which plain BCE is trained beside it:
a row group is read once, and the two heads take turns, so that both see the machine alike.

*role* trains an estimate of every cell beside the head, all of them at every step: here those of a
row group, in a training those of the set.

Printed: items a second of processor time, reading included; the ratio to plain BCE with and without
reading; peak memory of the process, and how much of it came after the first row group. And the
limit that the machine sets: the products of matrices of a head, at the rate of large ones, and a
copy of the features.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelops.multilabel.labels import UNKNOWN, YES, from_flat, states
from labelops.nn.cell_losses import LOSSES, CellObjective

SHARD, GROUP, BATCH, POSITIVES = 50_000, 4096, 256, 3
EPOCHS = 20


def write(folder: Path, n: int, d: int, k: int) -> None:
    """Write shards, unless they are there."""
    for part, start in enumerate(range(0, n, SHARD)):
        path = folder / f"part-{part:05d}.parquet"
        if path.exists():
            continue
        rng, size = np.random.default_rng(part), min(SHARD, n - start)
        x = rng.normal(size=(size, d)).astype(np.float32)
        ids = np.minimum(rng.geometric(3 / k, (size, POSITIVES)) - 1, k - 1)
        lists = pa.ListArray.from_arrays(
            pa.array(np.arange(size + 1, dtype=np.int32) * POSITIVES), pa.array(ids.ravel())
        )
        features = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), d)
        table = pa.table({"features": features, "labels": lists})
        pq.write_table(table, path, row_group_size=GROUP, use_dictionary=False)


def read(folder: Path, d: int, k: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Yield features and states of one row group after another."""
    for path in sorted(folder.glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            x = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, d)
            lists = table["labels"].combine_chunks()
            given = from_flat(lists.values.to_numpy(), lists.offsets.to_numpy(), n_classes=k)
            yield torch.from_numpy(x.copy()), states(given)


Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(name: str, given: np.ndarray) -> tuple[Loss, list[Tensor]]:
    """Return the loss of logits of some rows, and what it trains beside the head."""
    if name == "plain":
        yes = torch.from_numpy(given)

        def plain(logits: Tensor, rows: Tensor) -> Tensor:
            target = yes.index_select(0, rows).to(torch.float32)
            total = functional.binary_cross_entropy_with_logits(logits[0], target, reduction="sum")
            return total / len(rows)

        return plain, []
    unknown, fold = np.where(given == YES, YES, UNKNOWN), np.full(len(given), -1)
    objective = CellObjective(name, unknown, fold, n_folds=1, epochs=EPOCHS)
    objective.epoch = EPOCHS // 2

    def own(logits: Tensor, rows: Tensor) -> Tensor:
        return objective.loss(logits, rows, objective.outside[:, rows])

    return own, objective.parameters


class Head:
    """A linear head, and how long it has been trained."""

    def __init__(self, name: str, d: int, k: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = (torch.randn(1, d, k, generator=generator) * 0.01).requires_grad_(True)
        self.bias = torch.zeros(1, 1, k, requires_grad=True)
        self.optimiser = torch.optim.AdamW([self.weight, self.bias], lr=1e-3)
        self.name, self.seconds = name, 0.0

    def train(self, x: Tensor, given: np.ndarray, order: Tensor) -> None:
        """Take the items of a row group, batch by batch."""
        begin = time.process_time()
        loss, parameters = loss_of(self.name, given)
        beside = torch.optim.AdamW(parameters, lr=1e-3) if parameters else None
        self.seconds += (time.process_time() - begin) / EPOCHS
        begin = time.process_time()
        for rows in order.split(BATCH):
            value = loss(x.index_select(0, rows) @ self.weight + self.bias, rows)
            self.optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            if beside is not None:
                beside.step()
                beside.zero_grad()
        self.seconds += time.process_time() - begin


def peak() -> float:
    """Return the most memory that this process has had, MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def one_epoch(folder: Path, name: str, d: int, k: int) -> dict[str, float]:
    """Train a head by a loss, and one by plain BCE, and return what they took."""
    torch.set_num_threads(1)
    heads = [Head("plain", d, k), Head(name, d, k)]
    generator = torch.Generator().manual_seed(0)
    n, reading, first = 0, 0.0, 0.0
    begin = time.process_time()
    for x, given in read(folder, d, k):
        reading += time.process_time() - begin
        order = torch.randperm(len(x), generator=generator)
        for head in heads:
            head.train(x, given, order)
        if not n:
            # What is loaded and compiled at first use is no matter of the items.
            first = peak()
            reading = heads[0].seconds = heads[1].seconds = 0.0
        else:
            heads.reverse()
        n += len(x)
        begin = time.process_time()
    n -= min(GROUP, n)
    plain, own = sorted(heads, key=lambda head: head.name != "plain")
    return {
        "items": n,
        "reading": reading,
        "plain": plain.seconds,
        "own": own.seconds,
        "peak": peak(),
        "growth": peak() - first,
    }


def limit(d: int, k: int) -> float:
    """Return how many items a second no linear head can exceed on this machine."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    large, copy = torch.empty(1 << 26), torch.empty(1 << 26)

    def best(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(50):
            begin = time.process_time()
            work()
            seconds.append(time.process_time() - begin)
        return min(seconds)

    flops = 2 * 1024**3 / best(lambda: a @ b)
    copied = 4 * len(large) / best(lambda: copy.copy_(large))
    item = 4 * d * k / flops + 4 * d / copied
    print(
        f"limit: {4 * d * k / 1e3:.0f} kFLOP at {flops / 1e9:.0f} GFLOP/s and {4 * d / 1e3:.1f} kB "
        f"at {copied / 1e9:.1f} GB/s an item, {1 / item:.0f} items/s",
        flush=True,
    )
    return 1 / item


def in_a_process(folder: Path, loss: str, args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, __file__, "--folder", str(folder), "--one", loss]
    command += ["--features", str(args.features), "--classes", str(args.classes)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Measure every loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--losses", nargs="+", default=list(LOSSES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", help="a loss, in this process; for the script itself")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one_epoch(args.folder, args.one, args.features, args.classes)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, args.items, args.features, args.classes)
        most = limit(args.features, args.classes)
        for loss in args.losses:
            found = [in_a_process(folder, loss, args) for _ in range(args.rounds)]
            n, reading, plain, own = (
                sum(one[key] for one in found) for key in ("items", "reading", "plain", "own")
            )
            highest, growth = (max(one[key] for one in found) for key in ("peak", "growth"))
            whole, beside = n / (reading + own), n / (reading + plain)
            print(
                f"{loss:12} {whole:7.0f} items/s, {whole / beside:.0%} of plain BCE ({beside:.0f}, "
                f"{beside / most:.0%} of the limit), {plain / own:.0%} without reading; "
                f"{highest:.0f} MiB, {growth:.0f} more than after the first {GROUP} items",
                flush=True,
            )


if __name__ == "__main__":
    main()
