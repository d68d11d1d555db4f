"""Where to compute: chosen when it runs, never when it is written."""

import contextlib
from contextlib import AbstractContextManager

import torch


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
