"""Stage `dataset`: the product, with the source's columns and what was decided about each item.

`dataset/` has the items to train on, `set_aside/` those that were dropped, wait for a person, or
have a label that is not believed and cannot be changed surely.
Images pass through a batch at a time. Decisions of single rules or items can be left out: they are
then as if they had never been made.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import DECISIONS, SET_ASIDE
from pipelines.core.layout import SOURCE
from pipelines.core.matching import match_step
from pipelines.core.stage import Context, Map, Output, Stage, Step
from pipelines.decisions.product import (
    added,
    added_features,
    carried_columns,
    narrow,
    narrow_columns,
    soft_label_metadata,
    with_left_out,
)
from pipelines.decisions.settings import Config
from pipelines.errors import RecipeError
from pipelines.storage.forms import restore_table, working_schema
from pipelines.storage.frame import Frame

ASIDE = "set_aside"

SHARD = "shard"
"""Column of the product: the source's file that an item is from."""

IMAGE_ROWS = 100
"""Rows of a row group with images: so little is read to show one of them."""

ROWS = 16_384


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecars that it needs."""
    return [*narrow_columns(columns), *carried_columns(columns)]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: look for items to leave out, then divide every shard between folders."""
    stage = ctx.deciding_stage
    known = ctx.result(stage, "outcome")["rules"].tolist()
    unknown = sorted(set(config.leave_out_rules) - set(known))
    if unknown:
        raise RecipeError(
            f"stage {ctx.stage!r}: leave_out_rules must name rules of stage {stage!r}, got "
            f"{unknown}; rules: {known}. Correct the name"
        )
    output = Output(
        schema=product_schema(ctx),
        rows="some",
        row_group_rows=_group_rows(ctx),
        options={"write_page_index": True, "use_content_defined_chunking": True},
    )
    raw = [f"{SOURCE}/{name}" for name in ctx.source_schema.names]
    return [
        match_step(keys=left_out_ids, setting="leave_out_items", what="ids to leave out"),
        Map(
            name="write",
            reads=[*narrow(ctx), *carried_columns(ctx.columns), *raw],
            writes={ctx.stage: output, ASIDE: output},
            apply=divide,
        ),
    ]


def left_out_ids(ctx: Context[Config]) -> pa.Array:
    """Return the ids of items whose decisions are left out, each once."""
    return pc.unique(pa.array(ctx.config.leave_out_items, pa.string()))


def names_of_source(ctx: Context) -> list[str]:
    """Return under which names the source's columns appear in the product.

    A source that is itself such a product keeps its old columns as ``previous_…``.
    """
    names = ctx.source_schema.names
    taken = {SHARD, *added(ctx.columns), *(() if "item_id" in names else ("item_id",))}
    renamed: list[str] = []
    for name in names:
        while name in taken or (name != names[len(renamed)] and name in names):
            name = f"previous_{name}"
        taken.add(name)
        renamed.append(name)
    return renamed


def product_schema(ctx: Context) -> pa.Schema:
    """Return the product's columns, with what `datasets` must know of them in the metadata."""
    source = ctx.source_schema
    fields = [] if "item_id" in source.names else [pa.field("item_id", ctx.types["item_id"])]
    renamed = names_of_source(ctx)
    fields += [source.field(i).with_name(name) for i, name in enumerate(renamed)]
    fields.append(pa.field(SHARD, pa.string()))
    fields += [pa.field(name, ctx.types[name]) for name in added(ctx.columns)]
    metadata = dict(source.metadata or {})
    # These describe the columns as pandas had them.
    metadata.pop(b"pandas", None)
    if b"huggingface" in metadata:
        metadata[b"huggingface"] = _features(metadata[b"huggingface"], renamed, ctx)
    if "topk_ids" in added(ctx.columns):
        metadata[b"labelops.soft_labels"] = soft_label_metadata(ctx)
    return pa.schema(fields, metadata=metadata)


def _features(packed: bytes, renamed: Sequence[str], ctx: Context) -> bytes:
    """Extend the description of the columns that `datasets` keeps in the footer."""
    described: dict[str, Any] = json.loads(packed)
    old = described.get("info", {}).get("features")
    if not isinstance(old, dict):
        return packed
    features = {
        new: old[name]
        for name, new in zip(ctx.source_schema.names, renamed, strict=True)
        if name in old
    }
    text = {"dtype": str(ctx.types["item_id"]), "_type": "Value"}
    if "item_id" not in ctx.source_schema.names:
        features = {"item_id": text, **features}
    shard = {SHARD: {"dtype": "string", "_type": "Value"}}
    described["info"]["features"] = {**features, **shard, **added_features(old, ctx)}
    # A fingerprint and split sizes of the source do not hold for the product.
    for name in ("splits", "dataset_size", "download_size", "download_checksums", "size_in_bytes"):
        described["info"].pop(name, None)
    described.pop("fingerprint", None)
    return json.dumps(described, sort_keys=True).encode()


def _group_rows(ctx: Context) -> int:
    return IMAGE_ROWS if "image" in ctx.columns else ROWS


def divide(frame: Frame, ctx: Context[Config]) -> Iterator[Mapping[str, pa.Table]]:
    """Yield the rows of a shard, row group by row group, for one folder or the other."""
    rows = _group_rows(ctx)
    decided = with_left_out(frame, ctx)
    for name in carried_columns(ctx.columns):
        decided = decided.append_column(name, frame[name])
    is_aside = pc.is_in(decided["decision"], value_set=pa.array(DECISIONS[[*SET_ASIDE]]))
    raw = [f"{SOURCE}/{name}" for name in ctx.source_schema.names]
    names = names_of_source(ctx)
    schema = product_schema(ctx)
    handled = working_schema(schema)
    held = dict.fromkeys((ctx.stage, ASIDE), handled.empty_table())
    for start, batch in frame.batches(raw, rows):
        table = batch.rename_columns(names)
        if "item_id" not in names:
            table = table.add_column(0, "item_id", decided["item_id"].slice(start, len(batch)))
        table = table.append_column(SHARD, pa.repeat(pa.scalar(frame.label), len(batch)))
        for name in added(ctx.columns):
            table = table.append_column(name, decided[name].slice(start, len(batch)))
        table = table.cast(handled)
        aside = is_aside.slice(start, len(batch))
        for folder, chosen in ((ctx.stage, pc.invert(aside)), (ASIDE, aside)):
            held[folder] = pa.concat_tables([held[folder], table.filter(chosen)])
            if held[folder].num_rows >= rows:
                yield {folder: restore_table(held[folder].slice(0, rows), schema)}
                held[folder] = held[folder].slice(rows)
    for folder, rest in held.items():
        # A file without rows has no row group at all: `datasets` cannot read an empty one.
        if rest.num_rows:
            yield {folder: restore_table(rest, schema)}


STAGE = Stage(
    name="dataset",
    version=2,
    doc="writes the cleaned data set, and separately the items dropped, unresolved or for review",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: [],
    folders=(ASIDE,),
)
