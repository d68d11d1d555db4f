"""Rows of which the most probable classes are listed, for tests; ties, zeros and ones included."""

import numpy as np

from labelops.top_rows import TopRows, fill_tail


def make_top(
    seed: int, *, n: int | None = None, n_classes: int | None = None, longest: int = 12
) -> tuple[TopRows, np.ndarray]:
    """Return rows that list none, some or all classes, and given classes, listed or not."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 60)) if n is None else n
    k = int(rng.integers(1, 12)) if n_classes is None else n_classes
    dtype = rng.choice([np.float32, np.float64])
    rows = []
    for _ in range(n):
        m = int(rng.integers(0, min(k, longest) + 1))
        ids = np.sort(rng.choice(k, m, replace=False))
        tail = 0.0 if m == k else rng.choice([0.0, 0.25, 0.5, rng.random()]) if m else 1.0
        p = rng.dirichlet(np.full(m, 0.5)) * (1 - tail) if m else np.zeros(0)
        if m and rng.random() < 0.5:
            # Equal to each other and, often, to each of the others.
            p = np.full(m, (1 - tail) / m) if rng.random() < 0.5 else np.eye(m)[0] * (1 - tail)
        rows.append((ids, p, tail))
    start = np.append(0, np.cumsum([len(ids) for ids, _, _ in rows])).astype(np.int64)
    ids = np.concatenate([np.zeros(0, np.int64), *(ids for ids, _, _ in rows)])
    values = np.concatenate([np.zeros(0), *(p for _, p, _ in rows)]).astype(dtype)
    tails = np.array([tail for _, _, tail in rows], float)
    rest = fill_tail(tails, np.diff(start), k, np.dtype(dtype))
    given = rng.integers(0, k, n)
    # Half of the given classes are listed ones.
    for i, (listed, _, _) in enumerate(rows):
        if len(listed) and rng.random() < 0.5:
            given[i] = rng.choice(listed)
    return TopRows(start, ids, values, rest, k), given
