"""Labels over levels, one item and one level at a time, in Python's own numbers."""

import math


def normal(x):
    """Return Φ(x)."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def two_levels(mean, n):
    """Return the label on the two levels beside a mean."""
    label = [0.0] * n
    lower = min(math.floor(mean), n - 1) if n > 1 else 1
    label[lower - 1] = lower + 1 - mean
    if n > 1:
        label[lower] = mean - lower
    return label


def raw_masses(mean, std, n, mass):
    """Return what a normal law has at levels 1 … n."""
    if mass == "pdf":
        scale = std * math.sqrt(2 * math.pi)
        return [math.exp(-(((k - mean) / std) ** 2) / 2) / scale for k in range(1, n + 1)]
    return [
        normal((k + 0.5 - mean) / std) - normal((k - 0.5 - mean) / std) for k in range(1, n + 1)
    ]


def published(mean, std, n, mass):
    """Return DeQA's label, and whether it is that of two levels."""
    if std < 0.2:
        return two_levels(mean, n), True
    p = raw_masses(mean, std, n, mass)
    total = math.fsum(p)
    centre = (n + 1) / 2
    moment = math.fsum(x * k for k, x in enumerate(p, 1))
    alpha = 1 / total if mean == centre else (mean - centre) / (moment - centre * total)
    beta = (1 - alpha * total) / n
    label = [max(alpha * x + beta, 0.0) for x in p]
    if abs(math.fsum(x * k for k, x in enumerate(label, 1)) - mean) > 0.1:
        return two_levels(mean, n), True
    return label, False


def fidelity(h, g, e=1e-8):
    """Return 1 − √(h g + e) − √((1 − h)(1 − g) + e)."""
    return 1 - math.sqrt(h * g + e) - math.sqrt((1 - h) * (1 - g) + e)
