"""Losses of positive and unlabelled items with loops, as papers write them; planted data."""

import math

import numpy as np


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def logistic(z):
    return math.log1p(math.exp(-z))


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def kinds(z, state):
    return ([a for a, s in zip(z, state, strict=True) if s == kind] for kind in (1, -1, 0))


def case_control(z, state, prior, loss):
    """Return positive and negative risks, du Plessis et al. 2015: π R_P⁺ + [R_U⁻ − π R_P⁻]."""
    p, u, _ = kinds(z, state)
    positive = prior * mean(loss(a) for a in p)
    negative = mean(loss(-a) for a in u) - prior * mean(loss(-a) for a in p)
    return positive, negative


def one_sample(z, state, prior, loss):
    """Return positive, hidden negative and known negative risks with the positives put back.

    The mean over all items as negatives, less that of all positives among them.
    """
    p, u, n = kinds(z, state)
    share = (len(p) + prior * len(u)) / len(z)
    positive = share * mean(loss(a) for a in p)
    known = sum(loss(-a) for a in n) / len(z)
    whole = mean(loss(-a) for a in z)
    return positive, whole - known - share * mean(loss(-a) for a in p), known


def vpu(z, state, *, with_positives):
    p, u, _ = kinds(z, state)
    drawn = list(z) if with_positives else u
    return math.log(mean(sigmoid(a) for a in drawn)) - mean(math.log(sigmoid(a)) for a in p)


def planted(n, share, frequency, seed=0, distance=2.0, width=2):
    """Return points, which are positive, and states of one sample; classes are ±distance apart."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < share
    x = rng.normal(size=(n, width)).astype(np.float32)
    x[:, 0] += np.where(positive, distance, -distance)
    labelled = positive & (rng.random(n) < frequency)
    return x, positive, np.where(labelled, 1, -1).astype(np.int8)
