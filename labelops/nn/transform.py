"""From a decoded picture to what a model sees; random changes of it for training."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as v2

# N items, D features, H×W positions, S side of a square

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Return the central square of a picture, resized; uint8, shapes (3, H, W) and (3, S, S).

    Cropped first: a picture of 1 × 10 000 pixels scaled to a shorter side of 224 would take 1.5 GB.

    Examples
    --------
    >>> square(np.full((3, 2, 6), 7, np.uint8), 4)[0].tolist()
    [[7, 7, 7, 7], [7, 7, 7, 7], [7, 7, 7, 7], [7, 7, 7, 7]]
    """
    short = min(image.shape[1:])
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    tensor = v2.center_crop(tensor, [short, short])
    resized: Tensor = v2.resize(tensor, [side, side], antialias=True)
    return resized.numpy()


def cut(image: np.ndarray, boxes: np.ndarray, is_flipped: np.ndarray, side: int) -> np.ndarray:
    """Return regions of a picture as squares: cropped, then resized, then mirrored.

    Parameters
    ----------
    image
        uint8, shape (3, H, W).
    boxes
        (top, left, height, width) in pixels, within the picture, shape (V, 4).
    is_flipped
        Which are mirrored left to right, bool, shape (V,).
    side
        S.

    Returns
    -------
    uint8, shape (V, 3, S, S).

    Examples
    --------
    >>> image = np.arange(4, dtype=np.uint8)[None, None].repeat(3, 0).repeat(2, 1)
    >>> cut(image, np.array([[0, 1, 2, 2]]), np.array([True]), 2)[0, 0].tolist()
    [[2, 1], [2, 1]]
    """
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    squares = torch.empty((len(boxes), len(image), side, side), dtype=torch.uint8)
    for view, (top, left, height, width) in enumerate(boxes.tolist()):
        squares[view] = v2.resized_crop(
            tensor, top, left, height, width, [side, side], antialias=True
        )
    turned = torch.from_numpy(np.asarray(is_flipped, bool))
    squares[turned] = v2.horizontal_flip(squares[turned])
    return squares.numpy()


class Normalised(nn.Module):
    """A model that takes uint8 pictures: scales to [0, 1], normalises, goes on.

    Mean and standard deviation are by channel; zeros and ones leave pictures in [0, 1].
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model, self.mean, self.std = model, tuple(mean), tuple(std)
        # (x / 255 − mean) / std as one multiplication and one subtraction, in place.
        factor = torch.tensor([1 / (255 * s) for s in std]).view(1, 3, 1, 1)
        offset = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(1, 3, 1, 1)
        self.register_buffer("factor", factor, persistent=False)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's output for uint8 pictures."""
        output: Tensor = self.model(images.to(torch.float32).mul_(self.factor).sub_(self.offset))
        return output


class Standardised(nn.Module):
    """A model that takes features as they are: subtracts a centre, divides by a scale, goes on.

    Both have one value a feature. One of scale 0, which never changed, is not looked at: nothing
    was learned of it.
    """

    center: Tensor
    factor: Tensor

    def __init__(self, model: nn.Module, *, center: np.ndarray, scale: np.ndarray) -> None:
        super().__init__()
        self.model = model
        # Part of the weights: there may be thousands, and what is stored has to say them.
        self.register_buffer("center", torch.tensor(center, dtype=torch.float32))
        used = np.where(scale > 0, scale, 1.0)
        factor = np.where(scale > 0, 1 / used, 0.0)
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32))

    def forward(self, features: Tensor) -> Tensor:
        """Return the model's output for features, shape (N, D)."""
        output: Tensor = self.model((features - self.center) * self.factor)
        return output


def preprocessing(model: nn.Module) -> dict[str, object]:
    """Say what a model does to an item before all else, as JSON has it.

    Examples
    --------
    >>> preprocessing(nn.Linear(1, 1))
    {'formula': 'none'}
    """
    if isinstance(model, Normalised):
        formula = "(item / 255 − mean) / std, by channel"
        return {"formula": formula, "mean": list(model.mean), "std": list(model.std)}
    if isinstance(model, Standardised):
        return {"formula": "(item − center) × factor, which are among the weights"}
    return {"formula": "none"}


class Changes(NamedTuple):
    """How pictures are changed at random.

    Attributes
    ----------
    mirrored : left to right, bool, shape (N,).
    corner : row and column in the padded picture where the new one begins, shape (2, N).
    """

    mirrored: Tensor
    corner: Tensor

    def of(self, rows: slice) -> "Changes":
        """Return the changes of some pictures only."""
        return Changes(self.mirrored[rows], self.corner[:, rows])


def draw_changes(n: int, *, flip: bool, crop: int, generator: torch.Generator) -> Changes:
    """Return random changes of n pictures; parameters as in `augment`.

    Examples
    --------
    >>> draw_changes(2, flip=False, crop=0, generator=torch.Generator()).mirrored
    tensor([False, False])
    """
    mirrored = torch.zeros(n, dtype=torch.bool)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
    corner = torch.zeros(2, n, dtype=torch.int64)
    if crop:
        corner = torch.randint(0, 2 * crop + 1, (2, n), generator=generator)
    return Changes(mirrored, corner)


def change(images: Tensor, changes: Changes, *, crop: int) -> Tensor:
    """Return pictures changed; parameters as in `augment`.

    Examples
    --------
    >>> images = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> mirrored = Changes(torch.tensor([True]), torch.zeros(2, 1, dtype=torch.int64))
    >>> change(images, mirrored, crop=0).tolist()
    [[[[1.0, 0.0], [3.0, 2.0]]]]
    """
    n, side = len(images), images.shape[-1]
    if changes.mirrored.any():
        chosen = changes.mirrored.to(images.device).view(n, 1, 1, 1)
        images = torch.where(chosen, v2.horizontal_flip(images), images)
    if crop:
        padded = v2.pad(images, [crop] * 4, padding_mode="reflect")
        steps = torch.arange(side)
        row = (changes.corner[0][:, None] + steps).to(images.device)
        column = (changes.corner[1][:, None] + steps).to(images.device)
        item = torch.arange(n, device=images.device)[:, None, None]
        # Indexed positions come first when a slice stands between them.
        images = padded[item, :, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)
    return images


def augment(images: Tensor, *, flip: bool, crop: int, generator: torch.Generator) -> Tensor:
    """Return pictures mirrored at random and shifted by up to `crop` pixels at random.

    Parameters
    ----------
    images
        Shape (N, 3, S, S).
    flip
        Whether half of them are mirrored left to right.
    crop
        Padding (reflected) of which a random S × S part is taken; 0 for none.
    generator
        On the CPU; the only source of randomness.

    Examples
    --------
    >>> images = torch.arange(12.0).reshape(1, 3, 2, 2)
    >>> same = augment(images, flip=False, crop=0, generator=torch.Generator())
    >>> bool((same == images).all())
    True
    """
    drawn = draw_changes(len(images), flip=flip, crop=crop, generator=generator)
    return change(images, drawn, crop=crop)
