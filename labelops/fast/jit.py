"""Compiling, once a machine where it can be remembered."""

from collections.abc import Callable
from typing import Any

import numba

Function = Callable[..., Any]


def compiled(
    *, any_order: bool = False, any_sum_order: bool = False
) -> Callable[[Function], Function]:
    """Compile a function with numba; it runs without the GIL.

    Parameters
    ----------
    any_order
        Allow operations whose result does not depend on it, such as the maximum of numbers that
        are not NaN, to be done in any order, several at once.
    any_sum_order
        Allow sums in any order, where their last bits do not matter; NaN and infinity are kept.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if any_order:
        options["fastmath"] = {"nnan", "nsz", "reassoc"}
    elif any_sum_order:
        options["fastmath"] = {"nsz", "reassoc"}

    def decorate(function: Function) -> Function:
        try:
            result: Function = numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # Neither beside the source nor in the user's cache may be written: compile every time.
            result = numba.njit(**options)(function)
        return result

    return decorate
