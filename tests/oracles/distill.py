"""Losses of distillation for one item at a time, in Python's own numbers, from the papers."""

import math

from tests.oracles.soft_views import softmax


def log_softmax(z):
    """Return logarithms of probabilities of one row."""
    top = max(z)
    total = top + math.log(math.fsum(math.exp(x - top) for x in z))
    return [x - total for x in z]


def nkd(z, t, y, gamma, lam):
    """Return the parts of NKD: of the target, of the others, and the whole."""
    own = -softmax(t)[y] * log_softmax(z)[y]
    rest_z = [x / lam for c, x in enumerate(z) if c != y]
    rest_t = [x / lam for c, x in enumerate(t) if c != y]
    others = 0.0
    if rest_z:
        pairs = zip(softmax(rest_t), log_softmax(rest_z), strict=True)
        others = -math.fsum(a * b for a, b in pairs)
    return own, others, own + gamma * lam**2 * others


def uskd(z, w, y, rank_by):
    """Return the three parts of USKD of a batch of single labels, means, without their weights."""
    n, k = len(z), len(z[0])
    s = [softmax(row) for row in z]
    square = math.fsum(s[i][y[i]] ** 2 for i in range(n)) / n
    target = math.fsum(-(s[i][y[i]] ** 2 + 1 - square) * math.log(s[i][y[i]]) for i in range(n)) / n
    weak = others = 0.0
    for i in range(n):
        log_w, log_s, said = log_softmax(w[i]), log_softmax(z[i]), softmax(w[i])
        weak -= math.fsum((0.9 * (c == y[i]) + 0.1 / k) * log_w[c] for c in range(k)) / n
        if rank_by == "prob":
            score = [said[c] / (1 - said[y[i]]) + s[i][c] / (1 - s[i][y[i]]) for c in range(k)]
        else:
            score = [said[c] / (1 - said[y[i]]) + log_s[c] / (1 - log_s[y[i]]) for c in range(k)]
        order = sorted(range(k), key=lambda c: (-score[c], c))
        zipf = {c: 1 / (place + 1) for place, c in enumerate(order) if c != y[i]}
        rest = [c for c in range(k) if c != y[i]]
        log_rest = log_softmax([z[i][c] for c in rest])
        total = math.fsum(zipf.values())
        others -= math.fsum(zipf[c] / total * log_rest[j] for j, c in enumerate(rest)) / n
    return target, others, weak


def mix_kd(z, t, q, gamma, alpha):
    """Return MIX-KD of one item."""

    def tempered(row):
        mean = math.fsum(row) / len(row)
        spread = math.sqrt(math.fsum((x - mean) ** 2 for x in row) / (len(row) - 1))
        return [x / spread for x in row]

    z, t = tempered(z), tempered(t)
    log_s, said = log_softmax(z), softmax(t)
    known = -math.fsum(a * b for a, b in zip(q, log_s, strict=True))
    taught = math.fsum(a * (math.log(a) - b) for a, b in zip(said, log_s, strict=True))
    return gamma * known + alpha * taught


def slope_of(function, z, step=1e-6):
    """Return the derivative of Σ_i cost_i by every logit, by differences; z an array (N, K)."""
    slope = z * 0.0
    for at in [(i, c) for i in range(z.shape[0]) for c in range(z.shape[1])]:
        high, low = z.copy(), z.copy()
        high[at] += step
        low[at] -= step
        slope[at] = (function(high).sum() - function(low).sum()) / (2 * step)
    return slope


def decoupled(z, a, b, lam, eta, t):
    """Return decoupled mixup of one item."""
    log_s = log_softmax(z)
    cost = -lam * log_s[a] - (1 - lam) * log_s[b]
    if a == b or lam in (0, 1):
        return cost
    for own, rival, part in ((a, b, lam), (b, a, 1 - lam)):
        kept = [x for c, x in enumerate(z) if c != rival]
        cost -= eta * part**t * (z[own] - math.log(math.fsum(math.exp(x) for x in kept)))
    return cost


def rank_agreement(z, mixed, certainty):
    """Return M-NDCG of one item: of the certainties of its mixes and of the parts of labels."""
    by_part = sorted(range(len(mixed)), key=lambda j: -certainty[j])
    sure = [max(softmax(z)), *(max(softmax(mixed[j])) for j in by_part)]
    ideal = [1.0, *(certainty[j] for j in by_part)]
    dcg, idcg = (math.fsum(c / math.log2(r + 2) for r, c in enumerate(x)) for x in (sure, ideal))
    return 1 - min(dcg / idcg, idcg / dcg)
