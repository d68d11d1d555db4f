"""Noisy-label robust point-wise optimisation as the paper has it: loops over cells."""

import numpy as np


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


def objective(r: float, f: float, is_positive: bool, *, s: float, g: float) -> float:
    """What is maximised in the logits r and f; s and g are held fixed where they are weights."""
    log_s, log_g = np.log(sigmoid(r)), np.log(sigmoid(f))
    if is_positive:
        return (1 - g) * log_s + s * np.log(1 - sigmoid(f))
    return np.log(1 - sigmoid(r)) + g * log_s + s * log_g


def slopes(r: float, f: float, is_positive: bool, *, h: float = 1e-5) -> tuple[float, float]:
    """Finite differences of the objective."""
    fixed = {"s": sigmoid(r), "g": sigmoid(f)}
    by_r = objective(r + h, f, is_positive, **fixed) - objective(r - h, f, is_positive, **fixed)
    by_f = objective(r, f + h, is_positive, **fixed) - objective(r, f - h, is_positive, **fixed)
    return by_r / (2 * h), by_f / (2 * h)


def train(table, training, seed):
    """Factors U, V, P, Q of a table of true and false; without flips P and Q stay as they began."""
    n_rows, n_columns = table.shape
    k, rng = training.rank, np.random.default_rng(seed)
    u, v, p, q = (rng.random((n, k)) / np.sqrt(k) for n in (n_rows, n_columns) * 2)
    p, q = 5 * p, -5 * q
    cells = [(i, j) for i in range(n_rows) for j in range(n_columns) if table[i, j]]
    cells = [(i, j) for i, j in cells if not table[i].all()]
    rate = training.rate
    for _ in range(training.n_epochs):
        order = rng.permutation(len(cells))
        for first in range(0, len(cells), training.batch):
            batch = [cells[c] for c in order[first : first + training.batch]]
            absent = {i: [j for j in range(n_columns) if not table[i, j]] for i, _ in batch}
            rows = [i for i, _ in batch for _ in range(training.n_unvoted)]
            nth = rng.integers(0, np.array([len(absent[i]) for i in rows]))
            pairs = [(i, j, True) for i, j in batch for _ in range(training.n_unvoted)]
            pairs += [(i, absent[i][at], False) for i, at in zip(rows, nth, strict=True)]
            steps = [np.zeros_like(part) for part in (u, v, p, q)]
            for i, j, is_positive in pairs:
                s, g = sigmoid(u[i] @ v[j]), sigmoid(p[i] @ q[j])
                if not training.flips:
                    by_r, by_f = (1 - s if is_positive else -s), 0.0
                elif is_positive:
                    by_r, by_f = (1 - g) * (1 - s), -g * s
                else:
                    by_r, by_f = g * (1 - s) - s, (1 - g) * s
                steps[0][i] += by_r * v[j]
                steps[1][j] += by_r * u[i]
                steps[2][i] += by_f * q[j]
                steps[3][j] += by_f * p[i]
            share = len(batch) / 5000
            u, v = (
                part + rate * (step - training.penalty * share * part)
                for part, step in zip((u, v), steps[:2], strict=True)
            )
            if training.flips:
                p, q = (
                    part + rate * (step - training.flip_penalty * share * part)
                    for part, step in zip((p, q), steps[2:], strict=True)
                )
        rate *= training.decay
    return u, v, p, q
