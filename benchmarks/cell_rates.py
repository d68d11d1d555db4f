"""How fast a linear head learns from shards by each loss for missing positives, beside plain BCE.

    python benchmarks/cell_rates.py [--items 1000000] [--classes 80] [--features 512]
        [--losses an em …] [--rounds 3] [--folder FOLDER]

Shards of features and lists of classes are written to FOLDER (a temporary one otherwise) and read
again row group by row group; a linear head is trained on them for one epoch, in batches of 256, by
AdamW, on one thread. *plain* is `binary_cross_entropy_with_logits`; the losses are as in the middle
of a training, with everything at work that they do then. Every loss in a process of its own, after
one of plain BCE; best of the rounds.

Printed: items a second of processor time, reading included, the ratio to plain BCE of the same
rounds, and peak memory of the process.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelops.multilabel.labels import from_flat, states
from labelops.nn.cell_losses import LOSSES, CellObjective

SHARD, BATCH, POSITIVES = 50_000, 256, 3
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
        pq.write_table(pa.table({"features": features, "labels": lists}), path)


def one_epoch(folder: Path, loss: str, d: int, k: int) -> dict[str, float]:
    """Train for an epoch and return items a second and peak memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    weight = (torch.randn(1, d, k) * 0.01).requires_grad_(True)
    bias = torch.zeros(1, 1, k, requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=1e-3)
    n, begin = 0, time.process_time()
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path, use_threads=False)
        x = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, d)
        lists = table["labels"].combine_chunks()
        given = from_flat(lists.values.to_numpy(), lists.offsets.to_numpy(), n_classes=k)
        yes = states(given)
        features = torch.from_numpy(x.copy())
        target = torch.from_numpy(yes)
        objective = None
        if loss != "plain":
            fold = np.full(len(x), -1)
            unknown = np.where(yes == 1, 1, -1)
            objective = CellObjective(loss, unknown, fold, n_folds=1, epochs=EPOCHS)
            objective.epoch = EPOCHS // 2
            if objective.parameters:
                own = torch.optim.AdamW(objective.parameters, lr=1e-3)
        order = torch.randperm(len(x))
        for start in range(0, len(x), BATCH):
            rows = order[start : start + BATCH]
            logits = features[rows] @ weight + bias
            if objective is None:
                value = functional.binary_cross_entropy_with_logits(
                    logits[0], target[rows].to(torch.float32), reduction="sum"
                ) / len(rows)
            else:
                value = objective.loss(logits, rows, objective.outside[:, rows])
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            if objective is not None and objective.parameters:
                own.step()
                own.zero_grad()
        n += len(x)
    seconds = time.process_time() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"rate": n / seconds, "peak": peak}


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
    parser.add_argument("--rounds", type=int, default=3)
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
        in_a_process(folder, "plain", args)
        for loss in args.losses:
            rounds = [
                [in_a_process(folder, name, args) for name in ("plain", loss)]
                for _ in range(args.rounds)
            ]
            plain, own = (max(r[i]["rate"] for r in rounds) for i in (0, 1))
            peaks = [max(r[i]["peak"] for r in rounds) for i in (0, 1)]
            print(
                f"{loss:12} {own:9.0f} items/s, {own / plain:.0%} of plain BCE ({plain:.0f}); "
                f"{peaks[1]:.0f} MiB, plain {peaks[0]:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
