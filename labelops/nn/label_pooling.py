"""Soft labels of crops from label maps, a batch at a time, by torchvision's RoIAlign."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import roi_align

from labelops.label_maps import LabelMaps, check_boxes

# B crops, K classes, U classes stored in a map, k kept, h×w cells


class MapBatch(NamedTuple):
    """Label maps of B crops on a device; attributes as of `labelops.label_maps.LabelMaps`."""

    ids: Tensor
    scores: Tensor
    rest: Tensor
    n_classes: int


def to_batch(
    maps: LabelMaps, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> MapBatch:
    """Return label maps as tensors: ids int64, scores of a floating type.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> to_batch(sparsify_maps(np.zeros((2, 3, 4, 5)), k=2)).scores.shape
    torch.Size([2, 2, 4, 5])
    """
    # torch has few operations for uint16.
    return MapBatch(
        torch.from_numpy(maps.ids.astype(np.int64)).to(device),
        # Copied: what was read from a file may not be written to, which torch cannot promise.
        torch.from_numpy(maps.scores.copy()).to(device, dtype),
        torch.from_numpy(maps.rest.copy()).to(device, dtype),
        maps.n_classes,
    )


def pool_logits(batch: MapBatch, boxes: Tensor) -> Tensor:
    """Return the scores of one crop of every map.

    Parameters
    ----------
    batch
        Label maps, one a crop.
    boxes
        (x1, y1, x2, y2) in shares of the picture's width and height, shape (B, 4), on the CPU or
        the maps' device. x is along columns: RoIAlign, unlike most of numpy, has it first.

    Returns
    -------
    Logits, shape (B, K), of the scores' type.

    Raises
    ------
    ValueError
        If a box is empty or reaches outside its picture.

    Notes
    -----
    Only classes that a map stores are pooled, O(B U h w), then set into their places. Equal to
    `labelops.label_maps.pool` in double precision; in single, where a side is a whole number of
    cells, rounding may add a sampling point.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> left = np.array([[[9.0, 0.0]], [[0.0, 9.0]]])[None]
    >>> batch = to_batch(sparsify_maps(left, k=1))
    >>> pool_logits(batch, torch.tensor([[0.0, 0.0, 0.5, 1.0]])).tolist()
    [[9.0, 0.0]]
    """
    n, _, height, width = batch.ids.shape
    check_boxes(boxes.detach().cpu().numpy(), n)
    device, dtype = batch.scores.device, batch.scores.dtype
    item = torch.arange(n, device=device)
    cells = batch.ids + (item * batch.n_classes)[:, None, None, None]
    stored, at = torch.unique(cells, return_inverse=True)
    owner = torch.div(stored, batch.n_classes, rounding_mode="floor")
    n_stored = torch.bincount(owner, minlength=n)
    channel = torch.arange(len(stored), device=device) - (n_stored.cumsum(0) - n_stored)[owner]
    n_channels = int(n_stored.max()) if n else 0
    # One channel a stored class, above the rest; the last one is the rest itself.
    dense = torch.zeros(n, n_channels + 1, height, width, dtype=dtype, device=device)
    dense.scatter_(1, channel[at], batch.scores - batch.rest[:, None])
    dense[:, -1] = batch.rest
    sides = torch.tensor([width, height, width, height], dtype=dtype, device=device)
    rois = torch.cat([item.to(dtype)[:, None], boxes.to(device, dtype) * sides], dim=1)
    pooled = roi_align(dense, rois, output_size=1, sampling_ratio=-1, aligned=True)[:, :, 0, 0]
    logits: Tensor = pooled[:, -1:].repeat(1, batch.n_classes)
    logits[owner, stored - owner * batch.n_classes] += pooled[owner, channel]
    return logits


def pool_labels(batch: MapBatch, boxes: Tensor) -> Tensor:
    """Return the soft label of one crop of every map: softmax of `pool_logits`, shape (B, K)."""
    return torch.softmax(pool_logits(batch, boxes), dim=1)
