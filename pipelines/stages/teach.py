"""Stage `teach`: soft labels to train a student on, in few bytes, with all a reader must know.

`soft_labels/` has a row for every view of every item (`pipelines.soft.columns`): one an item of
what is believed of it, or several of regions of a picture, as the network says that was not trained
on it. The stage's own folder has a row an item: what the teacher says, and what storing it lost.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import softmax

from labelops.belief import UNIT
from labelops.distill.regions import Verdict
from pipelines.core.stage import (
    Arrays,
    Context,
    Map,
    Output,
    Reduce,
    Stage,
    Step,
    Tables,
    join_summaries,
)
from pipelines.errors import RecipeError
from pipelines.soft.columns import (
    FOLDER,
    ViewRows,
    from_table,
    parquet_options,
    soft_schema,
    to_table,
)
from pipelines.soft.judge import (
    THRESHOLDS,
    find_thresholds,
    items_of,
    judged,
    sample_confidence,
)
from pipelines.soft.said import Said, facts_of, reads_of, rows_of, say
from pipelines.soft.settings import Config
from pipelines.storage.frame import Frame

# V views, K classes

TOTALS = "totals"

FOUND = (
    ("n_views", pa.uint16()),
    ("teacher_max", pa.float32()),
    ("teacher_given", pa.float32()),
    ("teacher_entropy", pa.float32()),
    ("soft_tail", pa.float32()),
    ("soft_loss", pa.float32()),
)
"""Of an item: its views; of the first, the probability of its most probable and of the given class,
and the entropy in nats; and of all on average, what the classes have that are not stored, and the
divergence in nats of what a reader makes of it."""

TAILS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Between which probabilities of the classes that are not stored items are counted."""

ROWS_A_TABLE = 1 << 16
"""At least so many views make a row group, if a shard has them."""


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    return None if "given" in columns else "items do not have one given label each"


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs.

    Raises
    ------
    RecipeError
        If there cannot be networks.
    """
    needed = ["item_id", "item_hash", "given"]
    if config.teacher == "beliefs":
        return needed
    if not columns.issuperset(("image", "fold")):
        raise RecipeError(
            "stage 'teach': pictures, and stage 'infer' before it that trains networks on them, "
            "were expected for teacher = 'networks', got neither or one. Set teach.teacher = "
            "'beliefs'"
        )
    return [*needed, "image", "fold"]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: what the teacher says of every view, verdicts if asked for, totals."""
    facts, item_id = facts_of(ctx), ctx.types["item_id"]
    of_item = [("item_id", item_id), ("teacher_label", ctx.label_type), *FOUND]
    written = {ctx.stage: Output(schema=pa.schema(of_item))}
    views = Output(schema=soft_schema(facts, item_id), rows="some", options=parquet_options())
    asked = ctx.asked.steps(ctx) if config.teacher == "beliefs" else ()
    totals = ["given", "teacher_label", "n_views", "soft_tail", "soft_loss", FOLDER]
    count_all = Reduce(name=TOTALS, reads=totals, summarize=count)
    if not config.calibrate:
        written[FOLDER] = views
        return [
            *asked,
            Map(name="write", reads=reads_of(ctx), writes=written, apply=write),
            count_all,
        ]
    scratch = _scratch(ctx)
    plain = soft_schema(replace(facts, epsilon=None), item_id)
    written[scratch] = Output(schema=plain, rows="some", ipc=True)
    return [
        *asked,
        Map(name="write", reads=reads_of(ctx), writes=written, apply=write),
        Reduce(
            name=THRESHOLDS,
            reads=["item_id", "item_hash", scratch],
            summarize=sample,
            merge=join_summaries,
            finish=find_thresholds,
        ),
        Map(name="judge", reads=["item_id", scratch], writes={FOLDER: views}, apply=judge),
        count_all,
    ]


def _scratch(ctx: Context[Config]) -> str:
    return f"{ctx.stage}/_views"


def write(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write what the teacher says of a shard: its views, and a row an item."""
    folder = _scratch(ctx) if ctx.config.calibrate else FOLDER
    facts = replace(facts_of(ctx), epsilon=None)
    held: list[tuple[pa.Table, pa.Table]] = []
    n_held = 0
    for said in say(frame, ctx, np.ones((frame.n, ctx.config.views), bool)):
        rows, lost = rows_of(said, frame, facts)
        held.append((_items(said, rows, lost, frame, ctx), to_table(rows, facts)))
        n_held += len(lost)
        if n_held >= ROWS_A_TABLE:
            yield _joined(held, ctx.stage, folder)
            held, n_held = [], 0
    if held:
        yield _joined(held, ctx.stage, folder)


def _joined(held: Sequence[tuple[pa.Table, pa.Table]], *folders: str) -> Tables:
    whole = (pa.concat_tables(tables).combine_chunks() for tables in zip(*held, strict=True))
    return dict(zip(folders, whole, strict=True))


def _items(
    said: Said, rows: ViewRows, lost: np.ndarray, frame: Frame, ctx: Context[Config]
) -> pa.Table:
    """Return a row an item, of all whose views there are."""
    item, first, owner, n = np.unique(
        said.row, return_index=True, return_inverse=True, return_counts=True
    )
    probs = softmax(said.logits / ctx.config.temperature, axis=1)
    view, labels = np.arange(len(probs)), rows.labels
    rest = probs.copy()
    np.put_along_axis(rest, labels.ids.astype(np.int64), 0.0, axis=1)
    rest[view, labels.given] = 0.0
    tail, p_given = rest.sum(axis=1), probs[view, labels.given]
    tail_of, lost_of = (
        np.bincount(owner, weights=x, minlength=len(item)) / n for x in (tail, lost)
    )
    whole = probs[first]
    entropy = -(whole * np.log(np.where(whole > 0, whole, 1.0))).sum(axis=1)
    # In single precision, as they are written.
    numbers = (n, whole.max(axis=1), p_given[first], entropy, tail_of, lost_of)
    found = {
        name: pa.array(x.astype(kind.to_pandas_dtype()))
        for (name, kind), x in zip(FOUND, numbers, strict=True)
    }
    label = ctx.labels(whole.argmax(axis=1))
    ids = frame["item_id"].take(pa.array(item))
    return pa.table({"item_id": ids, "teacher_label": label, **found})


# -- verdicts --------------------------------------------------------------------------------------


def sample(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Return how sure the teacher is of sampled views of a shard."""
    rows, facts = from_table(frame.file(_scratch(ctx)), {})
    hashes = frame.array("item_hash")[items_of(rows, frame["item_id"])]
    return sample_confidence(rows, facts, hashes, ctx)


def judge(frame: Frame, ctx: Context[Config]) -> Tables:
    """Write the views of a shard with a verdict on each."""
    rows, facts = from_table(frame.file(_scratch(ctx)), {})
    verdict = judged(rows, facts, items_of(rows, frame["item_id"]), ctx)
    return {FOLDER: to_table(rows._replace(verdict=verdict), facts_of(ctx))}


# -- totals ----------------------------------------------------------------------------------------


def count(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Count views, items of which the given class is the teacher's, tails, and what is lost.

    Returns
    -------
    Integers: `loss` in units of 2⁻³² nats an item.
    """
    is_given = pc.equal(frame["teacher_label"], ctx.labels(frame.array("given")))
    table = frame.file(FOLDER)
    verdict = table["calib"].to_numpy() if "calib" in table.column_names else np.zeros(0, np.uint8)
    tail = np.digitize(frame.array("soft_tail").astype(np.float64), TAILS)
    return {
        "n_items": np.array(frame.n),
        "n_views": np.array(len(table)),
        "n_given": np.array(int(np.count_nonzero(is_given.to_numpy(zero_copy_only=False)))),
        "tails": np.bincount(tail, minlength=len(TAILS) + 1),
        "loss": np.rint(frame.array("soft_loss") * float(UNIT)).astype(np.int64).sum(keepdims=True),
        "verdicts": np.bincount(verdict, minlength=len(Verdict)),
    }


STAGE = Stage(
    name="teach",
    version=1,
    doc="writes soft labels of items, or of views of pictures, for a student to be trained on",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: ["item_id", "teacher_label", *(name for name, _ in FOUND)],
    skip=skip,
    gpu=True,
    folders=(FOLDER,),
    asks="label",
)
