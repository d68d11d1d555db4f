"""Label maps as overlays: where in a picture a class is seen, in few marks."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
from scipy.special import logit

from labelops.label_peaks import binary_cell_probs, cell_probs, class_map
from pipelines.maps.columns import COLUMNS, MapFacts, map_fields, maps_of
from pipelines.report.look import Reader
from pipelines.report.model import Item, Overlay, Patch
from pipelines.report.select import Place

LEVELS = np.array([-3.0, -2.0, -1.0, 0.0])
"""Log-odds above the class's cutoff from which a cell is drawn, ever stronger.

Not probabilities: how sure single cells are depends on the classifier. One trained on means over
cells is nearly sure of something in most of them.
"""


LEGEND = " Marks show where the label map finds the class; stronger means more probable."


class Overlays:
    """Items with what their label maps show of a class, where a run has such maps."""

    def __init__(self, run: Reader) -> None:
        self.run = run
        layers = [layer for layer in run.layout.layers if layer.stage in layer.schemas]
        schemas = [layer.schemas[layer.stage] for layer in layers]
        with_maps = [schema for schema in schemas if COLUMNS[0] in schema.names]
        self.facts = MapFacts.of(with_maps[-1]) if with_maps else None
        self.columns = COLUMNS if with_maps else ()
        cutoffs = run.result("localize", "cutoffs")
        self._cutoff = np.full(len(run.names), np.nan) if cutoffs is None else cutoffs["cutoff"]

    def items(self, places: Mapping[Place, float], class_id: int) -> tuple[Item, ...]:
        """Return the items at some places, of which each has −1 times its probability."""
        return tuple(
            replace(self.run.item(place), score=-key, overlay=self._of(place, class_id))
            for place, key in places.items()
        )

    def _of(self, place: Place, class_id: int) -> Overlay | None:
        if self.facts is None:
            return None
        cutoff = float(self._cutoff[class_id])
        return overlay(
            self.run.values(place),
            self.facts,
            class_id,
            self.run.names.name(class_id),
            cutoff=cutoff if 0 < cutoff < 1 else 0.5,
            most=self.run.limits.overlay_side,
        )


def overlay(
    values: Mapping[str, object],
    facts: MapFacts,
    class_id: int,
    name: str,
    *,
    cutoff: float,
    most: int,
) -> Overlay | None:
    """Return where a class is seen in a picture, or None if nowhere.

    Parameters
    ----------
    values
        A row of the sidecar with label maps.
    facts
        What they are of.
    class_id, name
        The class.
    cutoff
        Probability from which the class counts as seen.
    most
        Cells a side; of finer maps the largest probability of a block counts.
    """
    if not all(isinstance(values.get(column), list) for column in COLUMNS):
        return None
    maps = maps_of(pa.Table.from_pylist([dict(values)], pa.schema(map_fields(facts))), facts)
    probs = binary_cell_probs(maps) if facts.output == "logistic" else cell_probs(maps)
    seen = _coarse(class_map(maps, probs, class_id)[0], most)
    level = np.searchsorted(LEVELS, _log_odds(seen) - _log_odds(np.array(cutoff)), side="right")
    level[seen == 0] = 0
    patches = tuple(patch for y, row in enumerate(level.tolist()) for patch in _runs(y, row))
    return Overlay(name, seen.shape[1], seen.shape[0], patches) if patches else None


def _log_odds(p: np.ndarray) -> np.ndarray:
    # float32 ends here; what lies beyond is one thing.
    return np.asarray(logit(np.clip(p, 1e-7, 1 - 1e-7)))


def _coarse(seen: np.ndarray, most: int) -> np.ndarray:
    """Return the largest value of blocks, so that no side has more than so many."""
    for axis in (0, 1):
        step = -(-seen.shape[axis] // most)
        starts = np.arange(0, seen.shape[axis], step)
        seen = np.maximum.reduceat(seen, starts, axis=axis)
    return seen


def _runs(y: int, levels: list[int]) -> list[Patch]:
    """Return the stretches of a row that have one level, without the empty ones."""
    patches: list[Patch] = []
    for x, level in enumerate(levels):
        last = patches[-1] if patches else None
        if last is not None and last.level == level and last.x + last.width == x:
            patches[-1] = Patch(last.x, y, last.width + 1, level)
        elif level:
            patches.append(Patch(x, y, 1, level))
    return patches
