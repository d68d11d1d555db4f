"""Floats as integers of the same order.

The bits of a non-negative IEEE float, read as an integer, are ordered as the float is; of a
negative one in reverse. So a cut between two floats can be found digit by digit, by counting,
exactly.
"""

import numpy as np

MAX_KEY = np.uint64(2**64 - 1)
"""Larger than the key of any finite float: a cut here takes everything."""


def order_keys(values: np.ndarray) -> np.ndarray:
    """Return integers that are ordered as the floats are; 0.0 and −0.0 are one value.

    Parameters
    ----------
    values
        float32 or float64, any shape, no NaN.

    Returns
    -------
    uint64, same shape; below 2³² for float32.

    Raises
    ------
    TypeError
        If the values are of another type.

    Examples
    --------
    >>> keys = order_keys(np.array([-1.0, -0.5, -0.0, 0.0, 1e-300, 0.5]))
    >>> (np.diff(keys.astype(float)) > 0).tolist()
    [True, True, False, True, True]
    """
    if values.dtype == np.float32:
        # Adding zero turns −0.0 into 0.0.
        bits = (values + np.float32(0)).view(np.uint32)
        top = np.uint32(1 << 31)
        return np.asarray(np.where(bits & top, ~bits, bits | top).astype(np.uint64))
    if values.dtype == np.float64:
        wide = (values + 0.0).view(np.uint64)
        top64 = np.uint64(1 << 63)
        return np.asarray(np.where(wide & top64, ~wide, wide | top64))
    raise TypeError(f"order_keys: values must be float32 or float64, got {values.dtype}")


def float_of_keys(keys: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the floats that have some keys: the inverse of `order_keys`.

    Examples
    --------
    >>> float_of_keys(order_keys(np.array([-0.5, 0.0, 2.0])), np.dtype(float)).tolist()
    [-0.5, 0.0, 2.0]
    """
    if dtype == np.float32:
        bits, top = keys.astype(np.uint32), np.uint32(1 << 31)
        return np.asarray(np.where(bits & top, bits ^ top, ~bits).view(np.float32))
    wide, top64 = keys.astype(np.uint64), np.uint64(1 << 63)
    return np.asarray(np.where(wide & top64, wide ^ top64, ~wide).view(np.float64))
