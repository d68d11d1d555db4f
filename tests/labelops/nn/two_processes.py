"""What each process that torchrun starts does: train a student, and again from a checkpoint."""

import os
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from labelops.nn import checkpoints
from labelops.nn.checkpoints import Checkpoint
from labelops.nn.mixing import consistency
from labelops.nn.student import Batch, Second, Share, StudentTraining, cross_entropy, fit_student
from labelops.nn.transform import Normalised

N, K, SIDE, AFTER = 21, 3, 6, 4
TRAINING = StudentTraining(
    epochs=2,
    batch_rows=8,
    optimizer="sgd",
    learning_rate=0.2,
    weight_decay=0.1,
    ema_decay=0.5,
    most_gradient=0.9,
    flip=True,
    crop=1,
)


def student() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(1), nn.Linear(4 * (SIDE - 2) ** 2, K)
        )
    return Normalised(net, mean=(0.5,) * 3, std=(0.25,) * 3)


def agreeing(logits: Tensor, other: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(logits, batch) + consistency(logits, other, threshold=0.4)


def train(
    share: Share, start: Checkpoint | None = None, *, views: bool = False
) -> tuple[nn.Module, list[bytes]]:
    """Return the student, and its state after every step."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 3, SIDE, SIDE)).astype(np.uint8)
    probs, weights = rng.dirichlet(np.ones(K), N), rng.uniform(0, 2, N)
    stored: list[bytes] = []

    def other(rows: np.ndarray, seed: int) -> np.ndarray:
        shifts = [np.random.default_rng([seed, row]).integers(0, 99) for row in rows]
        return images[rows] // 2 + np.asarray(shifts, np.uint8)[:, None, None, None]

    model = fit_student(
        student(),
        lambda rows: images[rows],
        probs,
        weights,
        n_classes=K,
        training=TRAINING,
        seed=9,
        device=torch.device("cpu"),
        start=start,
        after_step=lambda progress: stored.append(checkpoints.dump(progress)),
        share=share,
        second=Second(other, agreeing) if views else None,
    )
    return model, stored


def main(folder: Path) -> None:
    torch.distributed.init_process_group("gloo")
    share = Share(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    whole, stored = train(share)
    again, _ = train(share, checkpoints.load(stored[AFTER - 1]))
    states = {"whole": whole, "again": again, "views": train(share, views=True)[0]}
    for name, model in states.items():
        data = safetensors.torch.save(dict(model.state_dict()))
        (folder / f"{name}-{share.process}").write_bytes(data)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
