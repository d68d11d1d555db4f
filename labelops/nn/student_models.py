"""Students by what they take: tables of features, or pictures."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from labelops.nn.classifier import new_classifier
from labelops.nn.transform import Normalised, Standardised

# N items, D features, H hidden units, K classes, S side


def table_student(
    features: np.ndarray, *, n_classes: int, n_hidden: int = 0, seed: int = 0
) -> Standardised:
    """Return a student of features: linear, or with one hidden layer of H rectified units.

    A linear one begins with weights of 0, since a feature that hardly any item has keeps what it
    began with.

    Parameters
    ----------
    features
        Of the items that it will be trained on, float32, shape (N, D): their mean and standard
        deviation become part of it.
    n_classes
        K.
    n_hidden
        H; 0 for none.
    seed
        Decides the weights of two layers, which do not come from torch's global generator.

    Raises
    ------
    ValueError
        If there is no item, or a feature is not finite.

    Examples
    --------
    >>> student = table_student(np.array([[0.0], [2.0]], np.float32), n_classes=3)
    >>> student.center, student.factor, student(torch.zeros(5, 1)).shape
    (tensor([1.]), tensor([1.]), torch.Size([5, 3]))
    """
    center = features.mean(axis=0, dtype=np.float64) if len(features) else np.full(1, np.nan)
    if not np.isfinite(center).all():
        raise ValueError(
            "student: items with finite features were expected to learn their scale from, got "
            f"{len(features)} of which some are not finite"
        )
    scale = features.std(axis=0, dtype=np.float64)
    n_features = features.shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        last = nn.Linear(n_hidden or n_features, n_classes)
        net: nn.Module = last
        if n_hidden:
            net = nn.Sequential(nn.Linear(n_features, n_hidden), nn.ReLU(), last)
        else:
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    return Standardised(net, center=center, scale=scale)


def picture_student(
    name: str,
    *,
    n_classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    weights: Mapping[str, Tensor] | None = None,
    seed: int = 0,
) -> Normalised:
    """Return a student of pictures, uint8, shape (N, 3, S, S): a classifier of torchvision.

    Parameters
    ----------
    name
        Of the architecture.
    n_classes
        K.
    mean, std
        By channel, of pictures in [0, 1].
    weights
        Of all but the head to begin with, a state dict; None for random ones.
    seed
        Decides the weights that are random.

    Raises
    ------
    ValueError
        If the name is not known or the weights are of another architecture.

    Examples
    --------
    >>> student = picture_student(
    ...     "shufflenet_v2_x0_5", n_classes=3, mean=[0.5] * 3, std=[0.25] * 3
    ... )
    >>> student(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 3])
    """
    new = new_classifier(name, n_classes=n_classes, seed=seed, weights=weights)
    return Normalised(nn.Sequential(new.backbone, nn.Flatten(1), new.head), mean=mean, std=std)
