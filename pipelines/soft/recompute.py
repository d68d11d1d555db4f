"""Whether stored soft labels are what the teacher says: some are made again and compared.

Whoever trains on a store trusts its teacher, temperature and order of classes. Here nothing of the
store is trusted: what it says of itself is compared with what the run says, and drawn views are
asked about anew, of the beliefs or networks of the run and the pictures of the source. Hashes are
not looked at, so that it is said what differs, not only that something does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelops.calibration import log_safe
from labelops.soft.views import decode
from pipelines.core.intact import shard_files
from pipelines.core.reader import frames
from pipelines.core.stage import Context
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError, RunError
from pipelines.soft.columns import FOLDER, SoftFacts, ViewRows, from_table, take_rows, to_table
from pipelines.soft.judge import items_of, judged
from pipelines.soft.said import facts_of, reads_of, rows_of, say
from pipelines.soft.settings import Config
from pipelines.storage.frame import Frame
from pipelines.storage.wording import why

# V views

TEACH = "teach"
"""Stage that stores soft labels."""

SHOWN = 10
"""So many lines of what is wrong are shown."""


@dataclass(frozen=True, kw_only=True)
class Recomputed:
    """What came of it.

    Attributes
    ----------
    uri : the run's folder.
    n : views that were made again.
    n_differ : of these, stored with other numbers, whatever they mean.
    n_ids : of these, with other classes, or in another order.
    most : largest difference of a probability, of any class.
    divergence : mean divergence of the stored labels from those made again, in nats.
    tolerance : up to which difference of a probability labels count as the same.
    wrong : what else is not as it should be, in words.
    """

    uri: str
    n: int = 0
    n_differ: int = 0
    n_ids: int = 0
    most: float = 0.0
    divergence: float = 0.0
    tolerance: float = 0.0
    wrong: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether the store is what the teacher says."""
        differs = self.most > self.tolerance if self.tolerance else self.n_differ > 0
        return not self.wrong and not differs

    def text(self) -> str:
        """Return what to tell the user."""
        found = (
            f"{self.n:,} soft labels made again: {self.n_differ:,} stored otherwise, "
            f"{self.n_ids:,} with other classes; a probability differs by {self.most:.3g} at most, "
            f"mean divergence {self.divergence:.3g} nats"
        )
        if self.is_same:
            return f"{self.uri}/{FOLDER}: as the teacher says. {found}"
        remedy = f"Remedy: delete {self.uri}/{TEACH}, then: labelops resume {self.uri}"
        more = len(self.wrong) - SHOWN
        return "\n".join(
            [
                f"{self.uri}/{FOLDER}: not as the teacher says. {found}",
                *(f"  {line}" for line in self.wrong[:SHOWN]),
                *([f"  and {more:,} more"] if more > 0 else []),
                remedy,
            ]
        )


def recompute(uri: str, n: int, *, tolerance: float = 0.0, seed: int | None = None) -> Recomputed:
    """Make n stored soft labels again, drawn at random, and compare.

    Parameters
    ----------
    uri
        Of the folder of a run in which stage `teach` is finished.
    n
        How many; all if there are no more.
    tolerance
        Up to which difference of a probability labels count as the same. 0: to the last bit, as it
        is where networks run on a processor of the same kind; on a GPU they differ a little.
    seed
        Of what is drawn; None: others each time.

    Raises
    ------
    RunError
        If there are no soft labels of a run.
    ValueError
        If n < 1 or the tolerance is negative.
    """
    if n < 1 or not tolerance >= 0:
        raise ValueError(f"recompute: n ≥ 1 and tolerance ≥ 0 expected, got {n} and {tolerance:g}")
    run = load_run(uri)
    name = next((e.name for e in run.entries if e.stage.name == TEACH and e.skipped is None), "")
    manifest = run.manifest(name) if name else None
    if manifest is None:
        raise RunError(
            f"verify: a run with stage {TEACH!r} finished was expected for --recompute, got "
            f"{run.uri}. List {TEACH!r} in a recipe, or finish the run: labelops resume {run.uri}"
        )
    ctx: Context[Config] = run.context(name, run.layout(before=name))
    work = _Work(run, ctx, facts_of(ctx), tolerance)
    work.look([file for file in shard_files(manifest) if file["folder"] == FOLDER], n, seed)
    return work.found()


@dataclass
class _Work:
    """What was found so far."""

    run: Run
    ctx: Context[Config]
    facts: SoftFacts
    tolerance: float
    wrong: list[str] = field(default_factory=list)
    off: list[np.ndarray] = field(default_factory=list)
    """Of each view: stored otherwise, other classes, largest difference, divergence; (4, V)."""

    def found(self) -> Recomputed:
        """Return it."""
        off = np.concatenate([np.empty((4, 0)), *self.off], axis=1)
        return Recomputed(
            uri=self.run.uri,
            n=off.shape[1],
            n_differ=int(off[0].sum()),
            n_ids=int(off[1].sum()),
            most=float(off[2].max(initial=0.0)),
            divergence=float(off[3].mean()) if off.size else 0.0,
            tolerance=self.tolerance,
            wrong=tuple(self.wrong),
        )

    def look(self, files: list[Mapping[str, Any]], n: int, seed: int | None) -> None:
        """Compare what every file says of itself, then drawn views of those that can be read."""
        sizes = [self._n_comparable(file) for file in files]
        total = sum(sizes)
        drawn = np.random.default_rng(seed).choice(total, min(n, total), replace=False)
        bounds = pairwise(accumulate(sizes, initial=0))
        shards = frames(self.run, reads_of(self.ctx), before=self.ctx.stage)
        for file, (first, last), frame in zip(files, bounds, shards, strict=True):
            chosen = np.sort(drawn[(drawn >= first) & (drawn < last)]) - first
            if len(chosen):
                self._compare(frame, file["name"], self._table(file), chosen)

    def _open(self, file: Mapping[str, Any]) -> pq.ParquetFile:
        return pq.ParquetFile(self.run.store.open_read(file["name"], file["bytes"]))

    def _n_comparable(self, file: Mapping[str, Any]) -> int:
        """Return how many views a file has; none where its numbers mean something else."""
        name = file["name"]
        try:
            with self._open(file) as opened:
                schema, n = opened.schema_arrow, opened.metadata.num_rows
            facts = SoftFacts.of(schema)
        except (OSError, ValueError, DataError) as err:
            self.wrong.append(f"{name}: {why(err)}")
            return 0
        for one in fields(facts):
            try:
                facts.check({one.name: getattr(self.facts, one.name)})
            except DataError as err:
                self.wrong.append(f"{name}: {err}")
        return n if replace(facts, teachers=self.facts.teachers) == self.facts else 0

    def _table(self, file: Mapping[str, Any]) -> pa.Table | None:
        try:
            with self._open(file) as opened:
                return opened.read(use_threads=False)
        except (OSError, ValueError) as err:
            self.wrong.append(f"{file['name']}: {why(err)}")
            return None

    def _compare(self, frame: Frame, name: str, table: pa.Table | None, chosen: np.ndarray) -> None:
        """Make chosen views of a shard again."""
        if table is None:
            return
        rows, _ = from_table(table, {})
        n_views, item = self.ctx.config.views, items_of(rows, frame["item_id"])
        view = rows.view_id.astype(np.int64)
        key = np.where((item < 0) | (view >= n_views), -1, item * n_views + view)
        if not np.array_equal(key, np.arange(frame.n * n_views)):
            n_items = f"{frame.n:,} items"
            self.wrong.append(f"{name}: every view of {n_items}, once and in order, was expected")
        elif self.facts.epsilon is not None:
            n_other = np.count_nonzero(judged(rows, self.facts, item, self.ctx) != rows.verdict)
            if n_other:
                self.wrong.append(f"{name}: {n_other:,} verdicts (calib) of views are others")
        chosen = chosen[key[chosen] >= 0]
        wanted = np.zeros(frame.n * n_views, bool)
        wanted[key[chosen]] = True
        made = _made(frame, self.ctx, self.facts, wanted.reshape(frame.n, n_views))
        # Each view once, in the order of their numbers.
        made = take_rows(made, np.searchsorted(np.flatnonzero(wanted), key[chosen]))
        self._note(name, take_rows(rows, chosen), made)

    def _note(self, name: str, stored: ViewRows, made: ViewRows) -> None:
        coding = self.facts.coding
        others = {
            "regions": _differ(stored[3:6], made[3:6]),
            "given classes": _differ([stored.labels.given], [made.labels.given]),
        }
        for what, is_other in others.items():
            if is_other.any():
                self.wrong.append(f"{name}: {np.count_nonzero(is_other):,} views have other {what}")
        is_other = _differ(stored.labels, made.labels) | np.any(list(others.values()), axis=0)
        p, q = decode(made.labels, coding=coding), decode(stored.labels, coding=coding)
        self.off.append(
            np.stack(
                [
                    is_other,
                    _differ([stored.labels.ids], [made.labels.ids]),
                    np.abs(p - q).max(axis=1),
                    (p * (log_safe(p) - log_safe(q))).sum(axis=1),
                ]
            )
        )


def _differ(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> np.ndarray:
    """Return in which rows arrays differ."""
    pairs = [(x.reshape(len(x), -1), y.reshape(len(y), -1)) for x, y in zip(a, b, strict=True)]
    return np.asarray(np.any([(x != y).any(axis=1) for x, y in pairs], axis=0))


def _made(frame: Frame, ctx: Context[Config], facts: SoftFacts, wanted: np.ndarray) -> ViewRows:
    """Return the wanted views of a shard, made again; without verdicts."""
    plain = replace(facts, epsilon=None)
    tables = [to_table(rows_of(said, frame, plain)[0], plain) for said in say(frame, ctx, wanted)]
    return from_table(pa.concat_tables(tables), {})[0]
