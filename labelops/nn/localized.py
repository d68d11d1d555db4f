"""Training pairs of a random crop and the soft label of just what is in it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from labelops.label_maps import LabelMaps, take_maps
from labelops.nn.label_pooling import pool_labels, to_batch

# N pictures, K classes, S side of a square

MAX_SEED = 1 << 63


class CropPolicy(NamedTuple):
    """How crops are drawn.

    Attributes
    ----------
    side : S; crops are resized to S × S.
    scale : least and largest share of the picture's area.
    ratio : least and largest width over height.
    flip : share of crops mirrored left to right; the label of a crop is that of its mirror image.
    """

    side: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5


class View(NamedTuple):
    """A crop in pixels of its picture: top, left, height, width; and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    is_mirrored: bool

    def box(self, height: int, width: int) -> Tensor:
        """Return (x1, y1, x2, y2) in shares of a picture's sides, float64, shape (1, 4).

        Examples
        --------
        >>> View(top=10, left=0, height=10, width=30, is_mirrored=False).box(40, 60).tolist()
        [[0.0, 0.25, 0.5, 0.5]]
        """
        x = torch.tensor([self.left, self.left + self.width], dtype=torch.float64) / width
        y = torch.tensor([self.top, self.top + self.height], dtype=torch.float64) / height
        return torch.stack([x[0], y[0], x[1], y[1]])[None]


def draw_view(height: int, width: int, policy: CropPolicy, *, seed: int) -> View:
    """Draw a crop; the same for the same seed.

    Examples
    --------
    >>> draw_view(40, 60, CropPolicy(scale=(1, 1), ratio=(1.5, 1.5), flip=0), seed=1)
    View(top=0, left=0, height=40, width=60, is_mirrored=False)
    """
    crop = v2.RandomResizedCrop(policy.side, scale=policy.scale, ratio=policy.ratio)
    # torchvision draws from the global generator only.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = crop.make_params([torch.empty(3, height, width, device="meta")])
        is_mirrored = bool(torch.rand(()) < policy.flip)
    return View(drawn["top"], drawn["left"], drawn["height"], drawn["width"], is_mirrored)


def take_view(image: Tensor, view: View, side: int) -> Tensor:
    """Return the pixels of a view, shape (3, S, S): crop, resize, mirror, in this order."""
    size = [view.height, view.width]
    crop: Tensor = functional.resized_crop(image, view.top, view.left, *size, [side, side])
    return functional.horizontal_flip(crop) if view.is_mirrored else crop


class LocalizedCrops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of pictures with the soft labels of what they show.

    Parameters
    ----------
    read
        Returns picture i, uint8, shape (3, H, W).
    maps
        Label maps of the *whole* pictures (`labelops.nn.score_maps.squash`), in the same order.
    policy
        How crops are drawn.
    seed
        With epoch and position it decides every crop, whoever loads it and in which order.

    Attributes
    ----------
    epoch : set it before each pass over the data, or every pass shows the same crops.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> maps = sparsify_maps(np.random.default_rng(0).normal(size=(2, 10, 3, 3)))
    >>> pictures = np.zeros((2, 3, 32, 48), np.uint8)
    >>> crops = LocalizedCrops(pictures.__getitem__, maps, CropPolicy(side=16), seed=0)
    >>> crop, label = crops[1]
    >>> tuple(crop.shape), label.sum().round(decimals=3).item()
    ((3, 16, 16), 1.0)
    """

    def __init__(
        self,
        read: Callable[[int], np.ndarray],
        maps: LabelMaps,
        policy: CropPolicy,
        *,
        seed: int,
    ) -> None:
        self.read, self.maps, self.policy, self.seed = read, maps, policy, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.maps.ids)

    def view(self, i: int, height: int, width: int) -> View:
        """Return the crop that is shown of picture i in this epoch."""
        words = np.random.SeedSequence([self.seed, self.epoch, i]).generate_state(1, np.uint64)
        return draw_view(height, width, self.policy, seed=int(words[0]) % MAX_SEED)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        """Return a crop, uint8 (3, S, S), and its soft label, float32 (K,).

        Raises
        ------
        IndexError
            If there is no picture i.
        """
        if not 0 <= i < len(self):
            raise IndexError(f"pictures 0…{len(self) - 1} were expected, got {i}")
        image = torch.from_numpy(np.ascontiguousarray(self.read(i)))
        height, width = image.shape[1:]
        view = self.view(i, height, width)
        batch = to_batch(take_maps(self.maps, slice(i, i + 1)), dtype=torch.float64)
        label = pool_labels(batch, view.box(height, width))[0].to(torch.float32)
        return take_view(image, view, self.policy.side), label
