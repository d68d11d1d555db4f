"""One thread inside torch, so that sums are in one order whatever the machine."""

import contextlib
import threading
from collections.abc import Iterator

import torch

_lock = threading.Lock()
_inside = 0
_outside_threads = 1


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread in the calling thread; restored afterwards.

    Shards are worked on side by side already; and a product of matrices summed by two threads may
    differ in its last bit from the same product summed by one.

    Examples
    --------
    >>> before = torch.get_num_threads()
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    >>> torch.get_num_threads() == before
    True
    """
    # Each thread keeps its own number, but a new one begins with the last that was set anywhere: so
    # every thread restores its own, and the last to leave what new threads begin with.
    global _inside, _outside_threads
    own = torch.get_num_threads()
    with _lock:
        if _inside == 0:
            _outside_threads = own
        _inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            torch.set_num_threads(own if _inside else _outside_threads)
