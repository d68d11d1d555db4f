"""Exponentials, logarithms and sigmoids in single precision for loops that are compiled.

Nothing but arithmetic, comparisons and bits, so that a processor does many at a time; libraries do
one after another. Errors are below 2 · 10⁻⁷ of a value of e^x, and of ln x or of 1, if that is
more.
"""

import numpy as np

from labelops.fast.jit import compiled

ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)

LOWEST, TINY = np.float32(-87), np.float32(1.2e-38)
"""Below the one, the exponential is no normal number; below the other, nothing is."""

PER_LN2 = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
"""Their sum is ln 2, and the first has few digits, so that multiples of it are exact."""

E0, E1, E2, E3, E4, E5, E6 = (
    np.float32(c)
    for c in (1, 1.00000004, 0.500000011, 0.166664154, 0.0416662181, 0.00837513527, 0.001394859)
)
"""Polynomial of e^x for |x| ≤ ln 2 / 2; here and below through 400 Chebyshev nodes."""

L0, L1, L2, L3, L4 = (
    np.float32(c) for c in (1, -0.499999883, 0.33333324, -0.250015851, 0.200020717)
)
L5, L6, L7, L8, L9 = (
    np.float32(c) for c in (-0.166091265, 0.141800787, -0.132408427, 0.129141703, -0.0763859243)
)
"""Polynomial of ln (1 + x) / x for √½ ≤ 1 + x ≤ √2."""

MANTISSA, PLACE, BIAS, ROOT_HALF = np.int32(23), np.int32(1 << 23), np.int32(127), 0x3F3504F3
"""Bits of a float: where the exponent is, that of 1, and √½."""


@compiled()
def exp(x):  # type: ignore[no-untyped-def]
    """Return e^x of x ≤ 0, e^−87 of all below −87."""
    x = max(x, LOWEST)
    n = np.floor(x * PER_LN2 + HALF)
    r = x - n * LN2_HIGH - n * LN2_LOW
    y = (((((E6 * r + E5) * r + E4) * r + E3) * r + E2) * r + E1) * r + E0
    return y * np.int32((np.int32(n) + BIAS) * PLACE).view(np.float32)


@compiled()
def log(x):  # type: ignore[no-untyped-def]
    """Return ln x of a normal number."""
    bits = np.float32(x).view(np.int32)
    n = np.int32(np.int32(bits - ROOT_HALF) >> MANTISSA)
    r = np.int32(bits - n * PLACE).view(np.float32) - ONE
    y = ((((L9 * r + L8) * r + L7) * r + L6) * r + L5) * r + L4
    y = ((((y * r + L3) * r + L2) * r + L1) * r + L0) * r
    return np.float32(n) * LN2_LOW + y + np.float32(n) * LN2_HIGH


@compiled()
def halves(z):  # type: ignore[no-untyped-def]
    """Return e^−|z|, p and 1 − p."""
    e = exp(-abs(z))
    large = ONE / (ONE + e)
    small = e * large
    return e, (large if z >= ZERO else small), (small if z >= ZERO else large)


@compiled()
def sides(z):  # type: ignore[no-untyped-def]
    """Return p, 1 − p, −log p and −log (1 − p)."""
    e, p, q = halves(z)
    rest = log(ONE + e)
    return p, q, max(-z, ZERO) + rest, max(z, ZERO) + rest
