"""The pool of several opinions, and the leading class of each, in one pass.

Logarithms and exponentials are series that compilers turn into vector instructions, to nine digits:
those of the system are calls, one number at a time.
"""

import math

import numpy as np

from labelops.fast.jit import compiled
from labelops.opinions.pool import FLOOR

LEAST = -100.0
"""e to the power of less is nothing in single precision."""

LOG2E, LN2, ROOT2 = 1 / math.log(2), math.log(2), math.sqrt(2)
POWERS = 2.0 ** np.arange(-150, 1)


@compiled()
def _pool(probs, bits, weights, floor, floor_bits, powers, pooled, leading):  # type: ignore[no-untyped-def]
    n_opinions, n, n_classes = probs.shape
    total = np.empty(n_classes, np.float64)
    for i in range(n):
        for k in range(n_classes):
            total[k] = 0.0
        for h in range(n_opinions):
            weight = weights[h]
            for k in range(n_classes):
                # x = 2^e m with m in [1, 2): log x = e log 2 + 2 atanh((m − 1) / (m + 1)).
                b = bits[h, i, k] if probs[h, i, k] > floor else floor_bits
                e = np.float64((b >> 23) - 127)
                m = 1.0 + np.float64(b & 0x7FFFFF) * 2.0**-23
                is_high = m > ROOT2
                m = 0.5 * m if is_high else m
                e = e + 1.0 if is_high else e
                s = (m - 1.0) / (m + 1.0)
                z = s * s
                series = 1.0 + z * (1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9))))
                total[k] += weight * (e * LN2 + 2.0 * s * series)
            best, most = 0, probs[h, i, 0]
            for k in range(1, n_classes):
                if probs[h, i, k] > most:
                    best, most = k, probs[h, i, k]
            leading[i, h] = best
        top = total[0]
        for k in range(1, n_classes):
            top = max(top, total[k])
        for k in range(n_classes):
            # e^y = 2^n e^r with |r| ≤ log 2 / 2.
            y = max(total[k] - top, LEAST)
            whole = np.floor(y * LOG2E + 0.5)
            r = y - whole * LN2
            series = 1.0 + r * (
                1.0
                + r
                * (
                    1 / 2
                    + r
                    * (
                        1 / 6
                        + r
                        * (
                            1 / 24
                            + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040 + r * (1 / 40320))))
                        )
                    )
                )
            )
            total[k] = series * powers[np.int64(whole) + 150]
        norm = 0.0
        for k in range(n_classes):
            norm += total[k]
        for k in range(n_classes):
            pooled[i, k] = total[k] / norm


def pool_and_lead(probs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `labelops.opinions.pool.pool`, and the most probable class of each opinion.

    Parameters
    ----------
    probs
        In [0, 1], shape (H, N, K); taken in single precision.
    weights
        From `labelops.opinions.pool.fit_weights`.

    Returns
    -------
    float32, shape (N, K), and int32, shape (N, H); of equally probable classes the first.

    Notes
    -----
    O(H N K). A row is the same whatever rows are beside it.

    Examples
    --------
    >>> pooled, leading = pool_and_lead(np.array([[[0.8, 0.2]], [[0.5, 0.5]]]), np.ones(2))
    >>> pooled.round(3).tolist(), leading.tolist()
    ([[0.8, 0.2]], [[0, 0]])
    """
    n_opinions, n, n_classes = probs.shape
    single = np.ascontiguousarray(probs, np.float32)
    pooled, leading = np.empty((n, n_classes), np.float32), np.empty((n, n_opinions), np.int32)
    floor = np.float32(FLOOR)
    bits, floor_bits = single.view(np.int32), np.int32(floor.view(np.int32))
    _pool(single, bits, weights, floor, floor_bits, POWERS, pooled, leading)
    return pooled, leading
