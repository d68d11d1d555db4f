"""How probable it is that an item has a class, given what a model and an annotator say.

A model trained on labels of which some are missing predicts what annotators would *say*: p = (1 −
α) q + β (1 − q), with q the probability that the class is there, α the share of its items that are
missing and β the share of the others that carry it wrongly. Solved for q, and then, as in
`labelops.belief`, the mean of q and of Bayes' rule with the given state: the first is right if
errors hit just the items that look like it, the second if they hit any.
"""

import numpy as np

from labelops.multilabel.cells import Cells
from labelops.multilabel.estimates import Estimates

# M cells

LEAST = 0.05
"""Labels must tell at least so much of the truth, 1 − α − β, for p to be solved for q."""


def presence(cells: Cells, found: Estimates) -> np.ndarray:
    """Return the probability that each cell's class is present.

    b = ½ q + ½ q · P(given | present) / P(given), q = (p − β) / (1 − α − β) within [0, 1].

    Parameters
    ----------
    cells
        Some cells, all with a known state.
    found
        Estimates of the classes: α is `missed_share` and β is `false_share`.

    Returns
    -------
    float64, shape (M,). Of a missing class it is the probability that it should be added; of a
    given one, one minus the probability that it should be removed.

    References
    ----------
    Elkan, Noto: Learning classifiers from only positive and unlabeled data. KDD 2008, lemma 1 (β =
    0). Natarajan et al.: Learning with noisy labels. NeurIPS 2013.

    Examples
    --------
    >>> from labelops.multilabel.estimates import estimate
    >>> found = estimate(np.array([[[90, 10], [0, 10]]]), np.array([[100, 10]]), np.ones((1, 2)))
    >>> cells = Cells(np.array([0]), np.array([0]), np.array([False]), np.array([0.4]))
    >>> presence(cells, found).round(3).tolist()  # q = 0.8, by Bayes' rule 0.667
    [0.733]
    """
    alpha = np.nan_to_num(found.missed_share[cells.class_id], nan=0.0)
    beta = np.nan_to_num(found.false_share[cells.class_id], nan=0.0)
    q = (cells.p.astype(np.float64) - beta) / np.maximum(1 - alpha - beta, LEAST)
    q = np.clip(q, 0.0, 1.0)
    if_present = np.where(cells.is_given, 1 - alpha, alpha)
    if_absent = np.where(cells.is_given, beta, 1 - beta)
    either = q * if_present + (1 - q) * if_absent
    # What the noise model holds for impossible happened: then the model alone is heard.
    posterior = np.where(either > 0, q * if_present / np.where(either > 0, either, 1.0), q)
    return np.asarray((q + posterior) / 2)
