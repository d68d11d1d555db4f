"""Classifiers of torchvision by name, with or without their head."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

HEADS = ("fc", "classifier", "heads", "head")


def check_name(name: str) -> str:
    """Return the name of an image classifier of torchvision as it is registered there.

    Raises
    ------
    ValueError
        If there is none; names the nearest.

    Examples
    --------
    >>> check_name("resnet18")
    'resnet18'
    """
    import torchvision

    # Without a module the list would hold detectors and video models as well.
    known: list[str] = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"an image classifier of torchvision {torchvision.__version__} was expected, got "
            f"{name!r}{hint}"
        )
    return name


def recommended_weights(name: str) -> dict[str, Tensor]:
    """Return the weights that torchvision recommends for a classifier, fetched once.

    Raises
    ------
    ValueError
        If the name is not known.
    OSError
        If there is no network.
    """
    import torchvision

    weights = torchvision.models.get_model_weights(check_name(name)).DEFAULT
    fetched: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    return fetched


def build(name: str, *, n_classes: int) -> nn.Module:
    """Return a classifier of K outputs with fresh weights from torch's global generator.

    Raises
    ------
    ValueError
        If the name is not known, or the model has no linear head.
    """
    import torchvision

    check_name(name)
    has_more = name in {"googlenet", "inception_v3"}
    extra = {"init_weights": True, "aux_logits": False} if has_more else {}
    model: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=n_classes, **extra
    )
    head_name(model, name)
    return model


def head_name(model: nn.Module, name: str) -> str:
    """Return the path of the linear layer that gives the classes.

    Raises
    ------
    ValueError
        If there is none (SqueezeNet ends in a convolution).
    """
    linear = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and path.split(".")[0] in HEADS
    ]
    if not linear:
        raise ValueError(
            f"a model whose last layer is linear was expected, {name} has none. Choose another "
            "architecture, or export its features as a torch.export program"
        )
    return str(linear[-1])


def remove_head(model: nn.Module, name: str) -> int:
    """Replace the linear head by identity, in place; return the number of features before it."""
    path = head_name(model, name)
    parent, _, leaf = path.rpartition(".")
    holder = model.get_submodule(parent)
    head = getattr(holder, leaf)
    setattr(holder, leaf, nn.Identity())
    return int(head.in_features)


def n_features(name: str) -> int:
    """Return the number of features before the head, without allocating the model.

    Examples
    --------
    >>> n_features("resnet18")
    512
    """
    with torch.device("meta"):
        model = build(name, n_classes=2)
    return remove_head(model, name)


def load_backbone(name: str, weights: Mapping[str, Tensor]) -> nn.Module:
    """Return a model without head, with given weights (a state dict), ready to embed.

    What belongs to the head is ignored, and so may have any number of classes.

    Raises
    ------
    ValueError
        If a weight is missing, left over, or of another shape.
    """
    with torch.random.fork_rng(devices=[]):
        model = build(name, n_classes=2)
    head = head_name(model, name)
    remove_head(model, name)
    kept = {key: value for key, value in weights.items() if not key.startswith(head + ".")}
    return _with_weights(model, name, kept)


def load_classifier(name: str, weights: Mapping[str, Tensor], *, n_classes: int) -> nn.Module:
    """Return a model of K classes with its head and given weights (a state dict), to predict with.

    Raises
    ------
    ValueError
        If a weight is missing, left over, or of another shape: also where the head has other than K
        classes.
    """
    with torch.random.fork_rng(devices=[]):
        model = build(name, n_classes=n_classes)
    head = head_name(model, name) + ".weight"
    if head in weights and len(weights[head]) != n_classes:
        raise ValueError(
            f"weights of {name} with {n_classes} classes were expected, these have "
            f"{len(weights[head])}. Name the classes of the model in data.classes, in their order"
        )
    return _with_weights(model, name, weights)


def _with_weights(model: nn.Module, name: str, weights: Mapping[str, Tensor]) -> nn.Module:
    expected = model.state_dict()
    # Files from before PyTorch 0.4.1 lack this counter, which is not used to predict.
    counters = {k: v.new_zeros(()) for k, v in expected.items() if k.endswith("tracked")}
    used = {k: v for k, v in weights.items() if not k.startswith(("AuxLogits.", "aux1.", "aux2."))}
    kept = counters | used
    wrong = sorted(
        key
        for key in expected.keys() | kept.keys()
        if key not in kept or key not in expected or kept[key].shape != expected[key].shape
    )
    if wrong:
        raise ValueError(
            f"weights of {name} were expected; {len(wrong)} of {len(expected)} tensors are "
            f"missing, left over or of another shape: {', '.join(wrong[:5])}. Is the file of "
            "another architecture?"
        )
    model.load_state_dict(kept)
    return model.eval().requires_grad_(False)


def fresh_backbone(name: str, *, seed: int) -> nn.Module:
    """Return a model without head with random weights, for measuring speed and for tests."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name, n_classes=2)
    remove_head(model, name)
    return model.eval().requires_grad_(False)
