"""Models that others trained, as modules that embed pictures or texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from labelops.nn.transform import IMAGENET_MEAN, IMAGENET_STD

# N items, C channels, H×W positions, L tokens, D features

PADDING = -1
"""Stands where a text has no more tokens."""


class Renormalised(nn.Module):
    """A model of pictures that takes them as ImageNet's mean and deviation leave them.

    They are brought to the mean and standard deviation that the model was trained with.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        ours_mean, ours_std = (torch.tensor(value) for value in (IMAGENET_MEAN, IMAGENET_STD))
        theirs_mean, theirs_std = (torch.tensor(list(value)) for value in (mean, std))
        self.register_buffer("factor", (ours_std / theirs_std).view(1, 3, 1, 1))
        self.register_buffer("offset", ((ours_mean - theirs_mean) / theirs_std).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the model's output for pictures, shape (N, 3, H, W)."""
        output: Tensor = self.model(pictures * self.factor + self.offset)
        return output


class PictureEncoder(nn.Module):
    """A vision model of transformers: its pooled output, or the mean over positions; (N, D)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> Tensor:
        """Return embeddings of pictures, shape (N, 3, H, W)."""
        found: Any = self.model(pixel_values=pictures)
        pooled: Tensor | None = getattr(found, "pooler_output", None)
        if pooled is None:
            hidden: Tensor = found.last_hidden_state
            # Tokens (N, L, D), or maps (N, D, H, W).
            pooled = hidden.mean(1) if hidden.dim() == 3 else hidden.mean((2, 3))
        return pooled.flatten(1)


class TextEncoder(nn.Module):
    """A language model of transformers: the mean over tokens, brought to length one; (N, D).

    References
    ----------
    Reimers, Gurevych: Sentence-BERT. EMNLP 2019, section 3 (mean over tokens).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """Return embeddings of texts from ids of their tokens, `PADDING` after the last; (N, L)."""
        mask = (tokens != PADDING).to(torch.int64)
        found: Any = self.model(input_ids=tokens.clamp(min=0), attention_mask=mask)
        hidden: Tensor = found.last_hidden_state
        weight = mask.unsqueeze(2).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1.0)
        return torch.nn.functional.normalize(mean, dim=1)
