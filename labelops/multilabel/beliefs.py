"""Probabilities that given classes are wrong and others missing, as careful as the data allow.

Three steps on a sample of cells: the model's log-odds are brought to what is given, class by class;
together with what an item's other classes say they explain the given states without any noise; and
from there noise is believed in only so far as the surest cells leave room for it.
"""

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np

from labelops.confident.surest import Wrong
from labelops.multilabel.opinion import Opinion, believe, fit_opinion, noise_limits
from labelops.multilabel.scaling import Scaling, fit_scaling, scaled
from labelops.multilabel.surest import Ends, error_counts, noise_ends

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
    missing_ends, wrong_ends : between what α and ω are, from `labelops.multilabel.surest`.
    """

    scaling: Scaling
    opinion: Opinion
    odds: np.ndarray
    limits: tuple[float, float]
    missing_ends: Ends
    wrong_ends: Ends

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything as plain arrays."""
        return {
            **self.scaling._asdict(),
            **{name: np.asarray(value) for name, value in self.opinion._asdict().items()},
            "odds": self.odds,
            "limits": np.array(self.limits),
            "missing_ends": np.array(self.missing_ends),
            "wrong_ends": np.array(self.wrong_ends),
        }

    def error_counts(self, n_given: int) -> tuple[Wrong, Wrong]:
        """Return how many labels are missing, and how many of `n_given` in all are wrong."""
        return error_counts(
            n_given,
            missing=self.opinion.missing,
            wrong=self.opinion.wrong,
            missing_ends=self.missing_ends,
            wrong_ends=self.wrong_ends,
        )

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
            Ends(*arrays["missing_ends"].tolist()),
            Ends(*arrays["wrong_ends"].tolist()),
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
    score = sound.bias + values @ sound.weight
    limits = noise_limits(score, *observed)
    opinion = fit_opinion(values, *observed, limits=limits)
    return Learned(scaling, opinion, odds, limits, *noise_ends(score, *observed))


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
