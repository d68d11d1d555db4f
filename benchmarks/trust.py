"""Whether learned trust tells wrong labels from wrong teachers, where both are planted.

    python benchmarks/trust.py [--seeds 5] [--wrong 0.3] [--sharpness 1.0] [--temperature 1.0]

600 items of 20 normal features, the class with the highest of five random linear scores. Of three
tenths the label is drawn anew, and, independently, of three tenths what the teacher says is what it
says of another item, drawn at random; elsewhere the teacher says softmax(sharpness × scores). 300
held-out and 5000 test items have right labels. The student is linear: 300 steps of gradient descent
at rate 1 (`labelops.nn.trust`).

Printed: mean trust where only the label was drawn anew and is wrong now, where only the teacher's
class is wrong, and where both are as they were; accuracy of the student on the test items, beside
students with one trust for all items. ± is half a 95 % interval over seeds.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelops.nn.threads import one_thread
from labelops.nn.trust import RATE, STEPS, Known, Taught, inner_loss, learn_trust

N, N_HELD_OUT, N_TEST, D, K = 600, 300, 5000, 20, 5
FIXED = (0.0, 0.5, 1.0)


def planted(seed: int, *, wrong: float, sharpness: float) -> dict[str, np.ndarray]:
    """Return items, and what was planted."""
    rng = np.random.default_rng(seed)
    n = N + N_HELD_OUT + N_TEST
    x = rng.normal(size=(n, D))
    scores = x @ rng.normal(size=(D, K))
    true = scores.argmax(axis=1)
    given, teacher = true[:N].copy(), sharpness * scores[:N]
    drawn = rng.random(N) < wrong
    given[drawn] = rng.integers(0, K, int(drawn.sum()))
    moved = rng.random(N) < wrong
    teacher[moved] = teacher[rng.integers(0, N, int(moved.sum()))]
    return {
        "x": x,
        "true": true,
        "given": given,
        "teacher": teacher,
        "label wrong": (given != true[:N]) & ~moved,
        "teacher wrong": (teacher.argmax(axis=1) != true[:N]) & ~drawn,
        "both right": ~drawn & ~moved,
    }


def student() -> nn.Linear:
    """Return a linear model that says nothing yet."""
    model = nn.Linear(D, K)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def accuracy(model: nn.Module, data: dict[str, np.ndarray]) -> float:
    """Return how often a student is right on the test items."""
    with torch.no_grad():
        said = model(torch.tensor(data["x"][-N_TEST:], dtype=torch.float32)).argmax(dim=1)
    return float((said.numpy() == data["true"][-N_TEST:]).mean())


def with_fixed(items: Taught, alpha: float, temperature: float) -> nn.Module:
    """Train a student with one trust for all items."""
    model = student()
    steps = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(STEPS):
        steps.zero_grad()
        inner_loss(
            model,
            dict(model.named_parameters()),
            items,
            torch.full((N,), alpha),
            temperature=temperature,
        ).backward()
        steps.step()
    return model


def measure(seed: int, args: argparse.Namespace) -> dict[str, float]:
    """Return what one seed gives."""
    data = planted(seed, wrong=args.wrong, sharpness=args.sharpness)
    x = torch.tensor(data["x"], dtype=torch.float32)
    items = Taught(
        x[:N],
        torch.tensor(data["teacher"], dtype=torch.float32),
        torch.tensor(data["given"]),
    )
    held_out = Known(x[N:-N_TEST], torch.tensor(data["true"][N:-N_TEST]))
    model = student()
    trust = learn_trust(model, items, held_out, temperature=args.temperature, seed=seed)
    found = {
        f"trust, {kind}": float(trust[data[kind]].mean())
        for kind in ("label wrong", "teacher wrong", "both right")
    }
    found["accuracy, learned trust"] = accuracy(model, data)
    for alpha in FIXED:
        fixed = with_fixed(items, alpha, args.temperature)
        found[f"accuracy, trust {alpha:g}"] = accuracy(fixed, data)
    return found


def main() -> None:
    """Measure every seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--wrong", type=float, default=0.3)
    parser.add_argument("--sharpness", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=1.0)
    args = parser.parse_args()
    rows = defaultdict(list)
    with one_thread():
        for seed in range(args.seeds):
            for name, value in measure(seed, args).items():
                rows[name].append(value)
    half = stats.t.ppf(0.975, max(args.seeds - 1, 1)) / np.sqrt(args.seeds)
    for name, values in rows.items():
        spread = half * np.std(values, ddof=1) if args.seeds > 1 else np.nan
        print(
            f"{name:26s} {np.mean(values):.3f} ± {spread:.3f}   "
            f"({min(values):.3f} … {max(values):.3f})"
        )


if __name__ == "__main__":
    main()
