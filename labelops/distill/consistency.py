"""Two views of an item should be told alike: what is sure of the weak one is learned of the strong.

For items without a label, or whose label is not trusted. What the weak view says is a label and has
no derivative; where it is not sure enough, nothing is learned.
"""

# N items, K classes

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import softmax

from labelops.distill.losses import Cost, check_logits, check_positive, divergence

Kind = Literal["hard", "soft"]

THRESHOLD = 0.95
"""Of FixMatch; UDA has 0.8 with labels sharpened at 0.4."""


class Guess(NamedTuple):
    """What the weak views say.

    Attributes
    ----------
    target : labels, rows sum to one, float64, shape (N, K).
    is_sure : which of them are learned, bool, shape (N,).
    """

    target: np.ndarray
    is_sure: np.ndarray


def guess(
    weak: np.ndarray,
    *,
    threshold: float | np.ndarray = THRESHOLD,
    kind: Kind = "hard",
    temperature: float = 1.0,
) -> Guess:
    """Return labels of weak views, and whether they are sure.

    Sure is max_k softmax(z)_k ≥ its threshold, at a temperature of 1.

    Parameters
    ----------
    weak
        Logits z, shape (N, K).
    threshold
        In [0, 1]; or one for each class, shape (K,), of which that of the most probable counts.
    kind
        *hard*: the most probable class, of ties the first. *soft*: softmax(z / τ).
    temperature
        τ; below 1 it sharpens.

    Raises
    ------
    ValueError
        If logits are not finite, or a setting is not as said.

    Examples
    --------
    >>> found = guess(np.array([[4.0, 0.0], [1.0, 0.0]]))
    >>> found.target.tolist(), found.is_sure.tolist()
    ([[1.0, 0.0], [1.0, 0.0]], [True, False])
    """
    z = check_logits(weak, "consistency")
    check_positive("consistency", temperature=temperature)
    limit = np.asarray(threshold, np.float64)
    if limit.shape not in ((), (z.shape[1],)) or not ((limit >= 0) & (limit <= 1)).all():
        raise ValueError(
            f"consistency: a threshold in [0, 1], or {z.shape[1]} of them, was expected, got "
            f"{threshold}"
        )
    if kind not in ("hard", "soft"):
        raise ValueError(f"consistency: kind hard or soft was expected, got {kind!r}")
    p, top = softmax(z, axis=1), z.argmax(axis=1)
    is_sure = p.max(axis=1) >= np.broadcast_to(limit, z.shape[1:])[top]
    if kind == "hard":
        return Guess((np.arange(z.shape[1]) == top[:, None]).astype(np.float64), is_sure)
    return Guess(softmax(z / temperature, axis=1), is_sure)


def consistency(
    weak: np.ndarray,
    strong: np.ndarray,
    *,
    threshold: float | np.ndarray = THRESHOLD,
    kind: Kind = "hard",
    temperature: float = 1.0,
) -> Cost:
    """Return KL(q ‖ softmax(z′)) where the weak view is sure, else 0.

    Of a hard guess it is the cross-entropy. Its mean is over all items, also those that cost
    nothing: while few are sure they count for little.

    Parameters
    ----------
    weak, strong
        Logits z and z′ of a weakly and a strongly changed view of each item, shape (N, K).
    threshold, kind, temperature
        As of `guess`.

    Returns
    -------
    Cost; the slope is by the logits of the strong view.

    References
    ----------
    Sohn et al.: FixMatch: simplifying semi-supervised learning with consistency and confidence.
    NeurIPS 2020, equation 4 (hard, 0.95). Xie et al.: Unsupervised data augmentation for
    consistency training. NeurIPS 2020, section 2.2 (soft, 0.8, τ = 0.4).

    Examples
    --------
    >>> weak, strong = np.array([[4.0, 0.0], [1.0, 0.0]]), np.zeros((2, 2))
    >>> consistency(weak, strong).value.round(4).tolist()
    [0.6931, 0.0]
    """
    z = check_logits(strong, "consistency")
    if np.shape(weak) != z.shape:
        raise ValueError(
            f"consistency: two views of one shape were expected, got {np.shape(weak)} and {z.shape}"
        )
    found = guess(weak, threshold=threshold, kind=kind, temperature=temperature)
    cost = divergence(z, found.target)
    value = np.where(found.is_sure, cost.value, 0.0)
    return Cost(value, np.where(found.is_sure[:, None], cost.slope, 0.0))
