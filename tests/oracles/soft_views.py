"""Soft labels of views, one view and one class at a time, in Python's own numbers."""

import math


def softmax(z, tau=1.0):
    """Return probabilities of one row."""
    top = max(z)
    e = [math.exp((x - top) / tau) for x in z]
    return [x / sum(e) for x in e]


def stored_classes(p, given, k):
    """Return the k most probable classes, ties by id, and the given one."""
    top = sorted(range(len(p)), key=lambda c: (-p[c], c))[:k]
    return top, top if given in top else [*top, given]


def smoothed(p, kept):
    """Return what a reader makes of it: the others share their mass."""
    others = [c for c in range(len(p)) if c not in kept]
    r = math.fsum(p[c] for c in others)
    return [p[c] if c in kept else r / len(others) for c in range(len(p))]


def renormalised(p, kept):
    """Return what a reader makes of it: the others have nothing."""
    total = math.fsum(p[c] for c in kept)
    return [p[c] / total if c in kept else 0.0 for c in range(len(p))]


def divergence(p, q):
    """Return KL(p ‖ q)."""
    return math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def systematic(p, u, n):
    """Return how often each class is hit by the points (u + j) / n."""
    counts = [0] * len(p)
    for j in range(n):
        point, until = (u + j) / n, 0.0
        for c, share in enumerate(p):
            until += share
            if point < until or c == len(p) - 1:
                counts[c] += 1
                break
    return counts


def cross_entropy(q, z):
    """Return −Σ q log softmax(z)."""
    top = max(z)
    log_sum = top + math.log(math.fsum(math.exp(x - top) for x in z))
    return -math.fsum(a * (x - log_sum) for a, x in zip(q, z, strict=True))
