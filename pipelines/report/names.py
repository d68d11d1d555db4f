"""Class names, by the ids of classes and by labels as the source has them."""

from collections.abc import Sequence
from typing import SupportsInt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.labels.classes import plain


class Names:
    """Class names for ids and for labels in the source's own type."""

    def __init__(self, names: Sequence[str], values: Sequence[int]) -> None:
        self.names = list(names)
        self._values = pa.array(list(values), pa.int64()) if len(values) else None

    def __len__(self) -> int:
        return len(self.names)

    def label(self, value: object) -> str:
        """Name of the class that a label in the source's own type stands for."""
        if self._values is None or value is None:
            return "" if value is None else str(value)
        # Truth values and whole floats stand for the classes of these numbers.
        class_id = self._values.index(int(value)).as_py() if isinstance(value, SupportsInt) else -1
        return self.name(class_id)

    def name(self, class_id: int) -> str:
        """Name of a class; empty for −1."""
        return self.names[class_id] if 0 <= class_id < len(self.names) else ""

    def ids(self, labels: pa.Array) -> np.ndarray:
        """Class ids of labels; −1 for null and for what is no class."""
        known = self._values if self._values is not None else pa.array(self.names, pa.string())
        class_ids = pc.index_in(plain(labels), value_set=known, skip_nulls=True)
        return np.asarray(class_ids.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)
