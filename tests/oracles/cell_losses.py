"""Losses of cells as their papers write them: one cell after another, with exp and log."""

from math import exp, log


def sigma(x):
    return 1 / (1 + exp(-x))


def cell(name, z, state, k, recalled=False):
    """Return what one cell of k classes costs; state 1, 0 or −1."""
    p, yes, unknown = sigma(z), state == 1, state == -1
    bce = -log(p) if yes else -log(1 - p)
    if name == "an":
        return bce
    if name == "wan":
        return bce / (k - 1) if unknown else bce
    if name == "ls":
        return -0.9 * log(p) - 0.1 * log(1 - p) if yes else -0.1 * log(p) - 0.9 * log(1 - p)
    if name == "asl":
        lowered = max(p - 0.05, 0)
        return -(1 - p) * log(p) if yes else -(lowered**4) * log(1 - lowered)
    if name == "hill":
        with_margin = sigma(z - 1)
        return -((1 - with_margin) ** 2) * log(with_margin) if yes else (1.5 - p) * p**2
    if name == "splc":
        if recalled:
            return -((1 - p) ** 2) * log(p)
        with_margin = sigma(z - 1)
        return -((1 - with_margin) ** 2) * log(with_margin) if yes else -(p**2) * log(1 - p)
    if name == "ll-r":
        return 0.0 if recalled else bce
    if name == "ll-ct":
        return -log(p) if recalled else bce
    if name == "em":
        return 0.1 * (p * log(p) + (1 - p) * log(1 - p)) if unknown else bce
    raise ValueError(name)


def multi_focal(z, state, n, n_max, *, outer=True):
    """Return what one cell costs, with n given positives of its class and n_max of the largest."""
    p, weight = sigma(z), (1 - log(n / n_max)) ** (1 / 3)
    lowered = max(p - 0.05, 0)
    cost = -log(p) if state == 1 else -(lowered ** (3 + weight)) * log(1 - lowered)
    return cost * weight if outer else cost


def variational(z, is_yes, alpha, gamma):
    """Return the loss of PU-MLC of one class."""
    n = len(z)
    mean = sum(z) / n
    tau = min(1.0, alpha * (sum((x - mean) ** 2 for x in z) / n) ** 0.5)
    p = [sigma(x / tau) for x in z]
    m = sum(p) / n
    given = [-log(q) for q, yes in zip(p, is_yes, strict=True) if yes]
    return m**gamma * log(m) + (sum(given) / len(given) if given else 0.0)
