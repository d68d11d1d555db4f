"""Where to compute: chosen when it runs, never when it is written."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor


def pick_device(name: str) -> torch.device:
    """Return the device that is meant by ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises
    ------
    ValueError
        If a GPU was asked for and there is none.

    Examples
    --------
    >>> pick_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device {name!r} was expected, but torch finds no CUDA device on this machine. Set "
            "device = 'auto' or 'cpu'"
        )
    return device


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return bfloat16 autocast on a GPU; on a CPU, single precision as it is.

    bfloat16 keeps the range of float32, so nothing has to be scaled; CPUs without it would be
    slower, and their answers would depend on the processor.
    """
    if device.type == "cuda":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Let torch take algorithms that give the same bits every time; restored afterwards.

    On a GPU those of cuDNN; on a CPU all.
    """
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        if device.type == "cpu":
            torch.use_deterministic_algorithms(True)
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]


def moved(values: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on a device.

    Examples
    --------
    >>> moved(np.arange(2), torch.device("cpu"))
    tensor([0, 1])
    """
    # torch has no tensors that may only be read.
    tensor = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if device.type == "cuda":
        # Pinned, the copy runs beside the step before.
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
