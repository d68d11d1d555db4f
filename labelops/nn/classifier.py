"""A model with its head apart, so that one pass gives features and classes."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from labelops.nn import architecture


class Classifier(nn.Module):
    """Features of a backbone, shape (N, D), and a head's logits of K classes side by side."""

    def __init__(self, backbone: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return D features, then K logits, shape (N, D + K)."""
        features = self.backbone(images).flatten(1)
        return torch.cat([features, self.head(features)], dim=1)


def new_classifier(
    name: str, *, n_classes: int, seed: int, weights: Mapping[str, Tensor] | None = None
) -> Classifier:
    """Return a classifier of K classes to be trained, from the name of its architecture.

    Weights of all but the head are a state dict, or random where there is none, too; torch's global
    generator is left as it was.

    Raises
    ------
    ValueError
        If the name is not known or the weights are of another architecture.

    Examples
    --------
    >>> new_classifier("resnet18", n_classes=3, seed=0)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 515])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = architecture.build(name, n_classes=n_classes)
        n_features = architecture.remove_head(model, name)
        head = nn.Linear(n_features, n_classes)
    if weights is not None:
        model = architecture.load_backbone(name, weights).requires_grad_(True)
    return Classifier(model, head)
