"""Run a model over batches: fixed shapes, halved when memory runs out, overlapped on a GPU."""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from labelops.nn.device import autocast
from labelops.nn.threads import one_thread

# N items, D features


class Forward:
    """An open model on its device.

    Parameters
    ----------
    model
        Takes a batch on the device, gives a tensor of as many rows; in evaluation mode.
    device
        Where to run.
    batch_rows
        Rows of every batch the model sees; shorter ones are filled up with zeros, so that an
        item's answer does not depend on how many came with it.

    Attributes
    ----------
    batch_rows : as given, or less after the device ran out of memory.

    Examples
    --------
    >>> double = Forward(nn.Identity(), device=torch.device("cpu"), batch_rows=2)
    >>> double(np.ones((3, 1), np.float32)).shape
    (3, 1)
    """

    def __init__(self, model: nn.Module, *, device: torch.device, batch_rows: int) -> None:
        self.device = device
        self.batch_rows = batch_rows
        self.model = model.to(device)
        if device.type == "cuda":
            self.model = self.model.to(memory_format=torch.channels_last)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the model's output for any number of rows, float32."""
        return next(self.stream([rows]))

    def stream(self, parts: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the outputs for each part; on a GPU the next part is made while one is computed."""
        waiting: list[Tensor] | None = None
        for part in parts:
            started = self._start(part)
            if waiting is not None:
                yield _fetch(waiting)
            waiting = started
        if waiting is not None:
            yield _fetch(waiting)

    def _start(self, rows: np.ndarray) -> list[Tensor]:
        outputs: list[Tensor] = []
        start = 0
        # No rows: one batch of zeros still tells the shape of the output.
        while start < len(rows) or not outputs:
            batch = rows[start : start + self.batch_rows]
            try:
                outputs.append(self._forward(batch))
                start += len(batch)
            except torch.OutOfMemoryError as error:
                if self.batch_rows == 1:
                    raise MemoryError(
                        f"{self.device}: memory for a batch of one row was expected, there is none "
                        "left. Use a smaller image_size or model, or device = 'cpu'"
                    ) from error
                self.batch_rows //= 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
        return outputs

    def _forward(self, batch: np.ndarray) -> Tensor:
        on_gpu = self.device.type == "cuda"
        shape = (self.batch_rows, *batch.shape[1:])
        kind = torch.from_numpy(np.empty(0, batch.dtype)).dtype
        padded = torch.zeros(shape, dtype=kind, pin_memory=on_gpu)
        padded.numpy()[: len(batch)] = batch
        moved = padded.to(self.device, non_blocking=True)
        if on_gpu and moved.dim() == 4:
            moved = moved.contiguous(memory_format=torch.channels_last)
        # On a CPU shards are worked on side by side; see `one_thread` for what more would do.
        threads = contextlib.nullcontext() if on_gpu else one_thread()
        with threads, torch.inference_mode(), autocast(self.device):
            output: Tensor = self.model(moved)
        return output[: len(batch)].flatten(1).to(torch.float32)


def _fetch(outputs: list[Tensor]) -> np.ndarray:
    return np.concatenate([output.cpu().numpy() for output in outputs])
