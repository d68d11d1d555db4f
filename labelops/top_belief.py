"""Beliefs where only the probable classes of an item's prediction are listed.

`labelops.belief.believe` on rows written out, without writing them out: classes that are not listed
all have the same prediction, so that among them the noise model alone decides. The few classes that
can matter are looked at (*candidates*: the listed ones, the given one, and those that explain the
given label best); what all others have together is known exactly.
"""

from typing import NamedTuple

import numpy as np

from labelops.belief import DOUBT
from labelops.calibration import log_safe
from labelops.decisions import Proposals
from labelops.opinions.pool import votes_for
from labelops.soft.labels import SoftLabels, stored, top_classes
from labelops.sparse_noise import SparseNoise
from labelops.top_rows import TopRows

# N items, K classes, C candidates of an item

AGREEING = 2
"""So many opinions must find a class most probable, where there are several, before it is given to
an item without asking anybody."""


class TopBelief(NamedTuple):
    """What is believed of N items.

    Attributes
    ----------
    ids : candidates, ascending, int64, shape (N, C); K where there is none.
    belief : probability of each to be the true class, float64, shape (N, C); 0 where there is none.
    cautious : likewise, under the kind of noise that speaks most for the given label; see
        `labelops.belief.believe`.
    others : probability of all other classes together, float64, shape (N,). Each of them is
        believed no more than any of `n_best` candidates.
    n_classes : K.
    is_trusted : whether the model is out of the way, see `labelops.confident.surest`.
    """

    ids: np.ndarray
    belief: np.ndarray
    cautious: np.ndarray
    others: np.ndarray
    n_classes: int
    is_trusted: bool = True

    @property
    def has_all(self) -> bool:
        """Whether the candidates of every item are all classes, in their order."""
        return bool(self.ids.strides[0] == 0)

    def column_of(self, class_id: np.ndarray) -> np.ndarray:
        """Return at which candidate some class of each item stands, int64, shape (N,)."""
        if self.has_all:
            return class_id
        return np.asarray((self.ids == class_id[:, None]).argmax(axis=1))

    def class_of(self, column: np.ndarray) -> np.ndarray:
        """Return the class that stands at a candidate of each item, int64, shape (N,)."""
        return np.asarray(self.ids[np.arange(len(self.ids)), column])


def all_classes(belief: np.ndarray, cautious: np.ndarray | None = None) -> TopBelief:
    """Return beliefs in every class, shape (N, K), in this form; cautious ones are the same or own.

    Examples
    --------
    >>> all_classes(np.array([[0.7, 0.3]])).class_of(np.array([1])).tolist()
    [1]
    """
    n, n_classes = belief.shape
    ids = np.broadcast_to(np.arange(n_classes), (n, n_classes))
    return TopBelief(ids, belief, belief if cautious is None else cautious, np.zeros(n), n_classes)


def candidates(
    rows: TopRows, given: np.ndarray, likeliest: np.ndarray, extra: np.ndarray
) -> np.ndarray:
    """Return the classes that are looked at, ascending; int64, shape (N, C), K where there is none.

    `likeliest` is from `SparseNoise.likeliest`, for as many classes as shall be told apart and are
    listed; `extra` is one more class of each item, −1 for none.
    """
    n, n_classes = rows.shape
    width = int(rows.n_listed.max(initial=0))
    listed = np.full((n, width), n_classes)
    place = np.arange(len(rows.ids)) - np.repeat(rows.start[:-1], rows.n_listed)
    listed[rows.row, place] = rows.ids
    own = np.where(extra < 0, given, extra)[:, None]
    ids = np.concatenate([listed, given[:, None], own, likeliest[given]], axis=1).astype(np.int64)
    ids.sort(axis=1)
    # Of a class that several reasons name, one stays.
    ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = n_classes
    ids.sort(axis=1)
    return ids


def believe_top(
    rows: TopRows, given: np.ndarray, noise: SparseNoise, ids: np.ndarray, *, temperature: float
) -> TopBelief:
    """Return the probability of the `candidates` to be an item's true class; see `believe`.

    O(C log k) an item. Sums over classes are rounded otherwise than those of the rows written out.
    """
    n, n_classes = rows.shape
    item = np.repeat(np.arange(n), ids.shape[1]).reshape(ids.shape)
    known = ids < n_classes
    asked = np.where(known, ids, 0)
    p = rows.at(item.ravel(), asked.ravel()).reshape(ids.shape)
    z, z_rest = log_safe(p) / temperature, log_safe(rows.rest) / temperature
    z[~known] = -np.inf
    n_rest = n_classes - known.sum(axis=1)
    top = np.maximum(z.max(axis=1), np.where(n_rest > 0, z_rest, -np.inf))
    q, q_rest = np.exp(z - top[:, None]), np.exp(z_rest - top)
    total = q.sum(axis=1) + n_rest * q_rest
    q, q_rest = q / total[:, None], q_rest / total
    y = np.repeat(given, ids.shape[1]).reshape(ids.shape)
    likelihood = np.where(known, noise.at(y, asked), 0.0)
    # Where candidates are all classes, a difference of sums is not quite 0.
    unasked = np.maximum(noise.row_sums[given] - likelihood.sum(axis=1), 0.0)
    unasked = np.where(n_rest > 0, unasked, 0.0)
    doubted, doubted_rest = q + DOUBT / n_classes, q_rest + DOUBT / n_classes
    explained = (doubted * likelihood).sum(axis=1) + doubted_rest * unasked
    cautious = doubted * likelihood / explained[:, None]
    others = (q_rest * n_rest + doubted_rest * unasked / explained) / 2
    belief = np.where(known, (q + cautious) / 2, 0.0)
    return TopBelief(ids, belief, cautious, others, n_classes)


def sure_of_given(belief: TopBelief, given: np.ndarray) -> TopBelief:
    """Return beliefs of a model that is not trusted: cautious ones leave every label as it is."""
    is_given = (belief.ids == given[:, None]).astype(np.float64)
    return belief._replace(cautious=is_given, is_trusted=False)


def where_agreed(belief: TopBelief, given: np.ndarray, opinions: np.ndarray) -> TopBelief:
    """Return beliefs whose cautious ones go where two opinions or more go; else to the given label.

    Parameters
    ----------
    belief
        Of N items.
    given
        Class ids, shape (N,).
    opinions
        Most probable class of each opinion, shape (N, H).

    Examples
    --------
    >>> one = all_classes(np.array([[0.1, 0.7, 0.2]]))
    >>> where_agreed(one, np.array([0]), np.array([[1, 2, 1]])).cautious.round(2).tolist()
    [[0.3, 0.7, 0.0]]
    >>> where_agreed(one, np.array([0]), np.array([[1, 2, 0]])).cautious.round(2).tolist()
    [[1.0, 0.0, 0.0]]
    """
    is_given = belief.ids == given[:, None]
    stays = is_given | (votes_for(opinions, belief.ids) >= AGREEING)
    cautious = np.where(stays, belief.cautious, 0.0)
    # One item at a time, so that a row is the same whatever rows are beside it.
    rest = (belief.cautious - cautious).sum(axis=1)
    return belief._replace(cautious=cautious + is_given * rest[:, None])


def in_classes(proposals: Proposals, belief: TopBelief) -> Proposals:
    """Return proposals about candidates as proposals about classes."""
    if belief.has_all:
        return proposals
    before, after = (belief.class_of(column) for column in (proposals.before, proposals.after))
    return proposals._replace(before=before, after=after)


def with_certainty(belief: TopBelief, class_id: np.ndarray) -> TopBelief:
    """Return beliefs in which some items surely have a class, −1 for as they are; shape (N,)."""
    sure = class_id >= 0
    if not sure.any():
        return belief
    certain = (belief.ids == class_id[:, None]).astype(np.float64)
    return belief._replace(
        belief=np.where(sure[:, None], certain, belief.belief),
        others=np.where(sure, 0.0, belief.others),
    )


def take_beliefs(belief: TopBelief, rows: slice) -> TopBelief:
    """Return what is believed of some items.

    Examples
    --------
    >>> take_beliefs(all_classes(np.array([[0.7, 0.3], [0.2, 0.8]])), slice(1, 2)).belief.tolist()
    [[0.2, 0.8]]
    """
    names = ("ids", "belief", "cautious", "others")
    return belief._replace(**{name: getattr(belief, name)[rows] for name in names})


def log_beliefs(belief: TopBelief) -> np.ndarray:
    """Return logarithms of all classes' probabilities, float64, shape (N, K).

    Classes that are no candidates have what is left evenly. 0 counts as the least float32, as of
    `labelops.calibration.log_safe`.

    Examples
    --------
    >>> one = TopBelief(np.array([[1, 4]]), np.array([[0.7, 0.0]]), np.array([[0.7, 0.0]]),
    ...                 np.array([0.3]), 4)
    >>> np.exp(log_beliefs(one)).round(3).tolist()
    [[0.1, 0.7, 0.1, 0.1]]
    """
    if belief.has_all:
        return log_safe(belief.belief)
    n_others = belief.n_classes - (belief.ids < belief.n_classes).sum(axis=1)
    even = belief.others / np.maximum(n_others, 1)
    # What is no class goes into one more column.
    whole = np.repeat(even[:, None], belief.n_classes + 1, axis=1)
    np.put_along_axis(whole, belief.ids, belief.belief, axis=1)
    return log_safe(whole[:, : belief.n_classes])


def soften(belief: TopBelief, given: np.ndarray, *, k: int) -> SoftLabels:
    """Keep the k most probable classes and the given one; see `labelops.soft.labels.sparsify`."""
    k = min(k, belief.n_classes, belief.ids.shape[1])
    asked = belief.belief
    if not belief.has_all:
        # What is no class comes behind classes that are believed with 0.
        asked = np.where(belief.ids < belief.n_classes, asked, -0.5)
    return stored(
        belief.belief,
        top_classes(asked, k=k),
        belief.column_of(given),
        n_classes=belief.n_classes,
        ids=belief.ids,
        others=belief.others,
    )
