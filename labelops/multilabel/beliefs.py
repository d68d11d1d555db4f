"""Probabilities that given classes are wrong and others missing, as careful as the data allow.

Three steps on a sample of cells: the model's log-odds are brought to what is given, class by class;
together with what an item's other classes say they explain the given states without any noise; and
from there noise is believed in only so far as the surest cells leave room for it.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from labelops.multilabel.opinion import Opinion, believe, fit_opinion, noise_limits
from labelops.multilabel.scaling import Scaling, fit_scaling, scaled

# M cells, K classes

NO_NOISE = (1e-6, 1e-6)


class Features(NamedTuple):
    """What is known of cells.

    Attributes
    ----------
    class_id : int64, shape (M,).
    is_given : whether the class was said to be present; otherwise it was ruled out. bool.
    log_odds : the model's, from `labelops.multilabel.opinion.model_log_odds`.
    evidence : of the item's other classes, from `labelops.multilabel.cooccurrence.evidence`.
    """

    class_id: np.ndarray
    is_given: np.ndarray
    log_odds: np.ndarray
    evidence: np.ndarray


class Learned(NamedTuple):
    """What was learned from a sample of cells.

    Attributes
    ----------
    scaling : of the model's log-odds, by class.
    opinion : how present classes are, and how given states were spoiled.
    odds : how often each class was given, to how often it was ruled out; shape (K,).
    limits : what α and ω were held to.
    """

    scaling: Scaling
    opinion: Opinion
    odds: np.ndarray
    limits: tuple[float, float]

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything as plain arrays."""
        return {
            **self.scaling._asdict(),
            **{name: np.asarray(value) for name, value in self.opinion._asdict().items()},
            "odds": self.odds,
            "limits": np.array(self.limits),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return what `arrays` gave."""
        return cls(
            Scaling(arrays["slope"], arrays["shift"]),
            Opinion(
                float(arrays["bias"]),
                arrays["weight"],
                float(arrays["missing"]),
                float(arrays["wrong"]),
            ),
            arrays["odds"],
            (float(arrays["limits"][0]), float(arrays["limits"][1])),
        )


def learn(features: Features, weight: np.ndarray, odds: np.ndarray) -> Learned:
    """Learn from a sample of cells, that stand for `weight` cells each, what to believe of all.

    `odds` are those of all items: how often each class was given, to how often it was ruled out;
    shape (K,). O(M) an iteration; the same cells in the same order give the same bits.
    """
    scaling = fit_scaling(
        features.log_odds, features.is_given, features.class_id, weight, n_classes=len(odds)
    )
    values, of_cell = _values(features, scaling), odds[features.class_id]
    observed = features.is_given, of_cell, weight
    sound = fit_opinion(values, *observed, limits=NO_NOISE)
    limits = noise_limits(sound.bias + values @ sound.weight, *observed)
    return Learned(scaling, fit_opinion(values, *observed, limits=limits), odds, limits)


def _values(features: Features, scaling: Scaling) -> np.ndarray:
    log_odds = scaled(features.log_odds, features.class_id, scaling)
    return np.stack([log_odds, features.evidence], axis=1)


def p_label_error(features: Features, learned: Learned) -> np.ndarray:
    """Return the probability that a cell is not as given; float64, shape (M,).

    Of a given class that it is wrong; of one that was ruled out that it is missing.
    """
    present = believe(
        _values(features, learned.scaling),
        features.is_given,
        learned.odds[features.class_id],
        learned.opinion,
    )
    return np.asarray(np.where(features.is_given, 1 - present, present))


def expected_errors(n_given: int, *, wrong: float, missing: float) -> tuple[float, float]:
    """Return how many given classes are wrong, and how many present ones were not given.

    Of the given classes the share `wrong` is not there; of the present ones the share `missing`,
    below 1, was ruled out.

    Examples
    --------
    >>> expected_errors(90, wrong=0.0, missing=0.1)
    (0.0, 10.0)
    """
    return n_given * wrong, n_given * (1 - wrong) * missing / (1 - missing)
