"""Scores of every cell, from any classifier that ends in "features, mean over cells, linear".

The linear layer is applied at each cell instead of once after the mean; nothing is trained. Whether
a model really ends so is not a question of its name: what the cells say on average must be what the
model says, and that is checked on every batch.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.transforms.v2 import functional as v2

from labelops.nn.architecture import head_name

# N pictures, D features, K classes, h×w cells, S side of a square

TOLERANCE = 1e-3
"""Of the largest score: rounding of single precision, also in convolutions on a GPU."""

HALF_TOLERANCE = 0.02
"""Likewise where the model runs in bfloat16, whose steps are 0.4 % of a value."""

POOLINGS = (functional.adaptive_avg_pool2d, Tensor.mean, torch.mean, functional.avg_pool2d)


class _Watch(TorchFunctionMode):
    """Keeps what was pooled last, if it has a certain number of channels."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.pooled: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        first = args[0] if args and func in POOLINGS else None
        if isinstance(first, Tensor) and first.dim() == 4 and first.shape[1] == self.n_features:
            self.pooled = first
        return func(*args, **(kwargs or {}))


class ScoreMaps(nn.Module):
    """A classifier that tells what it sees in every cell.

    Parameters
    ----------
    model
        Takes a batch of pictures, gives scores of shape (N, K); in evaluation mode.
    head
        Its last, linear layer.

    Examples
    --------
    >>> pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> head = nn.Linear(3, 2)
    >>> maps = ScoreMaps(nn.Sequential(nn.Conv2d(3, 3, 1), pool, head).eval(), head)
    >>> maps(torch.zeros(1, 3, 4, 5)).shape
    torch.Size([1, 2, 4, 5])
    """

    def __init__(self, model: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores of every cell, shape (N, K, h, w).

        Raises
        ------
        ValueError
            If the model does not end in "mean over cells, linear".
        """
        watch = _Watch(self.head.in_features)
        with watch, torch.no_grad():
            scores: Tensor = self.model(images)
        if watch.pooled is None:
            raise ValueError(
                f"score maps: a model that pools {self.head.in_features} features over cells and "
                "then is linear was expected; this one pools none. Transformers without a final "
                "mean and networks that flatten their cells have no score maps"
            )
        return score_cells(watch.pooled, self.head.weight, self.head.bias, scores)


def score_cells(cells: Tensor, weight: Tensor, bias: Tensor | None, scores: Tensor) -> Tensor:
    """Return the scores of every cell, if on average they are what a model says of the picture.

    What was pooled has shape (N, D, h, w), the linear layer (K, D) and (K,), the model's scores
    (N, K).

    Returns
    -------
    float32, shape (N, K, h, w).

    Raises
    ------
    ValueError
        If the mean is something else.

    Examples
    --------
    >>> cells = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 2)
    >>> score_cells(cells, torch.ones(1, 1), None, torch.tensor([[2.0]])).tolist()
    [[[[1.0, 3.0]]]]
    """
    with torch.no_grad(), torch.autocast(cells.device.type, enabled=False):
        single = None if bias is None else bias.float()
        maps = functional.conv2d(cells.float(), weight.float()[:, :, None, None], single)
    means = maps.flatten(2).mean(dim=2)
    apart = float((means - scores).abs().max()) if means.shape == scores.shape else np.inf
    tolerance = TOLERANCE if scores.dtype == torch.float32 else HALF_TOLERANCE
    if not apart <= tolerance * max(1.0, float(scores.abs().max())):
        raise ValueError(
            "score maps: the mean of a model's cells must be what it says of the picture; here "
            f"they differ by {apart:.3g}. Is there a layer between pooling and the last linear "
            "one, or is the model in training mode?"
        )
    return maps


def score_maps_of(model: nn.Module, name: str) -> ScoreMaps:
    """Return the score maps of one of torchvision's classifiers, with any number of classes.

    Raises
    ------
    ValueError
        If it has no linear head. Whether it pools shows with the first picture.
    """
    head = model.get_submodule(head_name(model, name))
    assert isinstance(head, nn.Linear)
    return ScoreMaps(model.eval(), head)


def squash(image: np.ndarray, side: int) -> np.ndarray:
    """Return a picture resized to a square without cutting anything off.

    Boxes in shares of the sides then mean the same in the picture and in its map. A central crop,
    as most classifiers are evaluated with, would move every one of them. uint8, shapes (3, H, W)
    and (3, S, S).

    Examples
    --------
    >>> squash(np.full((3, 2, 6), 7, np.uint8), 4).shape
    (3, 4, 4)
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    resized: Tensor = v2.resize(tensor, [side, side], antialias=True)
    return resized.numpy()
