"""Heads of several kinds on one embedding, and the opinion that is made of several.

Every kind is fitted by a step of its own, over all items in canonical order; then each says of any
item what it thinks without having seen it. How much each counts is found on a sample of the items,
before any other is predicted.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.hashing import is_sampled
from labelops.opinions import nearest
from labelops.opinions.nearest import References, refer
from pipelines.core.stage import (
    Arrays,
    Context,
    Fit,
    Map,
    Output,
    Reduce,
    Step,
    Tables,
    join_summaries,
)
from pipelines.core.state import READY, TABLE
from pipelines.errors import RecipeError
from pipelines.inference import heads
from pipelines.inference.folds import fold_of_items
from pipelines.inference.given import (
    CANDIDATE_SETS,
    CLASS_SETS,
    ONE_CLASS,
    Labels,
    given_of,
)
from pipelines.inference.inputs import input_column
from pipelines.inference.kept import first_items, keep, kept
from pipelines.inference.missing import fit_missing, open_missing, recalls_step
from pipelines.inference.settings import Config, HeadKind
from pipelines.inference.table import encoding_of
from pipelines.inference.unknown import counted_absent, learned_of
from pipelines.labels.columns import RULED_OUT
from pipelines.media.models import file_key, once
from pipelines.storage.arrays import read_array
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of, list_array, vectors_of, width_of

SAMPLE_ITEMS, SAMPLE_CELLS = 10_000, 1 << 23
"""Weights are fitted on so many items, or probabilities of all heads."""

MOST_PROTOTYPES = 1024
"""Classes up to which class means are taken, unless they are asked for."""

BLOCK_ROWS = 8192

CHUNK_BYTES = 32 * 2**20

OF_SETS = {"linear", "nearest", "trees"}
"""Heads for items with lists of labels; where classes are unknown, also the network."""

OF_CANDIDATES: tuple[HeadKind, ...] = ("linear", "nearest", "network")
"""Heads for items with candidate sets."""


class Head(NamedTuple):
    """A kind of head.

    Attributes
    ----------
    step : name of the step that fits it.
    fit : as of `Fit`.
    open : what it says, once it is fitted.
    votes : whether it counts where opinions must agree.
    """

    step: str
    fit: Callable[[Items, Context[Config], str], Arrays]
    open: Callable[[Context[Config]], heads.Said]
    votes: bool = True


def are_several(config: Config, columns: frozenset[str]) -> bool:
    """Return whether several opinions must agree, so that what each says is written down."""
    column = input_column(config.use, columns)
    if given_of(columns) is not ONE_CLASS:
        return False
    if column == READY:
        return True
    if column in ("pred_probs", "topk_probs") or config.train != "heads":
        return False
    return config.heads is None or sum(HEADS[kind].votes for kind in config.heads) > 1


def fields(ctx: Context[Config]) -> list[tuple[str, pa.DataType]]:
    """Return the column for the most probable class of each head, where there are several."""
    if not are_several(ctx.config, ctx.columns):
        return []
    is_ready = input_column(ctx.config.use, ctx.columns) == READY
    n = len(ctx.data.opinions) if is_ready else len(kinds_of(ctx))
    return [("opinions", pa.list_(pa.int32(), n))]


def kinds_of(ctx: Context[Config]) -> tuple[HeadKind, ...]:
    """Return the kinds of heads that are fitted: as set, or what suits the data."""
    config, is_one = ctx.config, given_of(ctx.columns) is not CLASS_SETS
    if given_of(ctx.columns) is CANDIDATE_SETS:
        if not set(OF_CANDIDATES).issuperset(config.heads or ()):
            raise RecipeError(
                f"stage {ctx.stage!r}: heads among {sorted(OF_CANDIDATES)} were expected for items "
                f"with candidates, got {list(config.heads or ())}. Leave heads out"
            )
        return config.heads or OF_CANDIDATES
    if not is_one:
        _check_sets(ctx)
    if config.heads is not None:
        return config.heads
    column = input_column(config.use, ctx.columns)
    kinds: tuple[HeadKind, ...] = ("linear", "nearest")
    if column in ("features", TABLE):
        from labelops.opinions.trees import WORTHWHILE_CELLS

        is_table = column == TABLE
        width = encoding_of(ctx).width if is_table else width_of(ctx.types["features"], "features")
        if width * ctx.n_classes <= WORTHWHILE_CELLS:
            kinds = (*kinds, "trees")
    # Columns of a table have no length that a cosine could compare.
    if is_one and column != TABLE and ctx.n_classes <= MOST_PROTOTYPES:
        kinds = (*kinds, "prototypes")
    if not is_one and counted_absent(ctx).any():
        kinds = (*kinds, "network")
    return kinds


def _check_sets(ctx: Context[Config]) -> None:
    """Refuse settings that do not fit lists of labels."""
    config, known = ctx.config, OF_SETS | ({"network"} if RULED_OUT in ctx.columns else set())
    if not known.issuperset(config.heads or ()):
        remedy = "Leave heads out"
        if "network" in (config.heads or ()):
            remedy += ", or set data.absent_labels = 'unknown' if given classes are not all"
        raise RecipeError(
            f"stage {ctx.stage!r}: heads among {sorted(known)} were expected for items with lists "
            f"of labels, got {list(config.heads or ())}. {remedy}"
        )
    if config.unknown is not None and RULED_OUT not in ctx.columns:
        raise RecipeError(
            f"stage {ctx.stage!r}: lists with unknown classes were expected for unknown = "
            f"{config.unknown!r}, got some that rule out what they do not give. Set "
            "data.absent_labels = 'unknown', or leave it out"
        )
    if config.labels_per_item is not None and config.labels_per_item > ctx.n_classes:
        raise RecipeError(
            f"stage {ctx.stage!r}: labels_per_item up to the {ctx.n_classes} classes was expected, "
            f"got {config.labels_per_item:g}"
        )


def fit_steps(ctx: Context[Config]) -> list[Step[Config]]:
    """Return the steps that fit heads and, if there are several, say how much each counts."""
    given = given_of(ctx.columns).columns(ctx.columns)
    kinds = kinds_of(ctx)
    reads = ["item_hash", *given, "embedding"]
    steps: list[Step[Config]] = [
        Fit(name=head.step, reads=reads, fit=head.fit) for head in _heads(ctx)
    ]
    if given_of(ctx.columns) is CLASS_SETS and "network" in kinds:
        steps.append(recalls_step(ctx))
    if len(kinds) == 1:
        return steps
    sample = Map(name="sample", reads=reads, writes=sample_output(ctx, kinds), apply=say_of_sample)
    silent = [kind for kind in kinds if not HEADS[kind].votes]
    return [*steps, sample, weigh_step(ctx, kinds, silent=silent)]


def open_heads(ctx: Context[Config]) -> list[heads.Said]:
    """Return what the fitted heads say."""
    return [head.open(ctx) for head in _heads(ctx)]


def _heads(ctx: Context[Config]) -> list[Head]:
    kind = given_of(ctx.columns)
    own = SET_HEADS if kind is CLASS_SETS else CANDIDATE_HEADS if kind is CANDIDATE_SETS else HEADS
    return [own[kind] for kind in kinds_of(ctx)]


def predict(frame: Frame, ctx: Context[Config], *, n_features: int) -> Iterator[Tables]:
    """Give every item the probabilities of heads that have not seen it."""
    kind, said = learned_of(ctx), open_heads(ctx)
    given, hashes = kind.read(frame, ctx), frame.array("item_hash")
    fold, ids = fold_of_items(given, hashes, ctx), frame["item_id"]
    # Many enough for a row group of their own.
    rows = max(1024, CHUNK_BYTES // (4 * max(n_features, ctx.n_classes)))
    for here, embedding in heads.even_blocks(frame, "embedding", rows):
        features, own = vectors_of(embedding)[0], kind.choose(given, here)
        spoken = [say(features, fold[here], hashes[here]) for say in said]
        probs, opinions = spoken[0], None
        if len(spoken) > 1:
            probs, leading = kind.pool(np.stack(spoken), ctx.own("weights"))
            opinions = leading if are_several(ctx.config, ctx.columns) else None
        yield heads.predictions(
            ctx, ids[here], hashes[here], own, fold[here], probs, embedding, opinions
        )


def say_of_sample(frame: Frame, ctx: Context[Config]) -> dict[str, pa.Table]:
    """Return what every head says of the sampled items of a shard."""
    kind, said = learned_of(ctx), open_heads(ctx)
    hashes, given = frame.array("item_hash"), kind.read(frame, ctx)
    wanted = sample_size(ctx, len(said))
    chosen = is_sampled(hashes, wanted=wanted, total=ctx.n_items)
    fold = fold_of_items(given, hashes, ctx)
    features = [np.empty((0, 0), np.float32)]
    for here, embedding in heads.even_blocks(frame, "embedding", BLOCK_ROWS):
        block = vectors_of(embedding)[0]
        features.append(block[chosen[here]])
    rows = np.flatnonzero(chosen)
    x = np.concatenate(features[1:]) if len(features) > 1 else features[0]
    none = np.empty((0, ctx.n_classes), np.float32)
    probs = [say(x, fold[rows], hashes[rows]) if len(rows) else none for say in said]
    return sample_tables(ctx, hashes[rows], kind.choose(given, rows), probs)


# -- one of several --------------------------------------------------------------------------------


def _folder(ctx: Context) -> str:
    return f"{ctx.stage}/_opinions"


def sample_size(ctx: Context, n_opinions: int) -> int:
    """Return on how many items weights are fitted."""
    return min(SAMPLE_ITEMS, max(1, SAMPLE_CELLS // (n_opinions * ctx.n_classes)))


def sample_output(ctx: Context, names: Sequence[str]) -> dict[str, Output]:
    """Return the scratch of what each opinion says of sampled items."""
    said = [(f"p_{i}", pa.list_(pa.float32(), ctx.n_classes)) for i in range(len(names))]
    given = given_of(ctx.columns).sample_type(ctx.n_classes)
    schema = pa.schema([("item_hash", pa.uint64()), ("given", given), *said])
    return {_folder(ctx): Output(schema=schema, rows="some", ipc=True)}


def sample_tables(
    ctx: Context[Config], hashes: np.ndarray, given: Labels, said: Sequence[np.ndarray]
) -> dict[str, pa.Table]:
    """Return rows of that scratch; probabilities of each opinion, shape (n, K)."""
    table = {
        "item_hash": pa.array(hashes, pa.uint64()),
        "given": learned_of(ctx).sample(given),
        **{f"p_{i}": list_array(probs.astype(np.float32)) for i, probs in enumerate(said)},
    }
    return {_folder(ctx): pa.table(table)}


Check = Callable[[np.ndarray, np.ndarray, Context], Arrays]
"""From what is said of the sample (H, n, K) and its labels to results beside the weights."""


def weigh_step(
    ctx: Context,
    names: Sequence[str],
    *,
    check: Check | None = None,
    silent: Sequence[str] = (),
) -> Reduce[Config]:
    """Return the step that says how much each opinion counts; those `silent` agree with nobody."""
    return Reduce(
        name="weights",
        reads=[_folder(ctx)],
        summarize=lambda frame, ctx: arrays_of(frame.file(_folder(ctx))),
        merge=join_summaries,
        finish=partial(weigh, names=names, check=check, silent=silent),
    )


def weigh(
    summary: Arrays,
    ctx: Context,
    *,
    names: Sequence[str],
    check: Check | None = None,
    silent: Sequence[str] = (),
) -> Arrays:
    """Return the weights at which all opinions together are likeliest to give the labels.

    Returns
    -------
    `weights`; `n` items they are fitted on; names, `heads`; and, of one class an item, `tells`:
    whether an opinion counts where several must agree. It finds more than one class most probable,
    and is not `silent`.
    """
    order = np.argsort(summary["item_hash"], kind="stable")
    given = summary["given"][order]
    probs = np.stack([summary[f"p_{i}"][order] for i in range(len(names))])
    found = given_of(ctx.columns).weigh(probs, given)
    if "tells" in found:
        found["tells"] = found["tells"] & ~np.isin(names, silent)
    return {
        **found,
        "n": np.array(len(order)),
        "heads": np.array(names),
        **(check(probs, given, ctx) if check else {}),
    }


# -- the kinds -------------------------------------------------------------------------------------


def _n_states(ctx: Context[Config]) -> int:
    """Return how many numbers the labels of an item are."""
    return ctx.n_classes if given_of(ctx.columns) is CLASS_SETS else 1


def _keep_references(items: Items, ctx: Context[Config], out: str) -> Arrays:
    n_features = items.schema.field("embedding").type.list_size
    some = first_items(items, nearest.n_references(n_features, _n_states(ctx)), ctx)
    references = refer(some.features, some.given, some.item_hash)
    keep(references._asdict(), out)
    return {"n": np.array(len(references.given))}


def _open_references(ctx: Context[Config]) -> heads.Said:
    from labelops.fast.neighbours import Voters

    paths = [ctx.artifact("nearest", f"{name}.npy") for name in References._fields]

    def load() -> Voters:
        return Voters(References(*map(read_array, paths)), n_classes=ctx.n_classes)

    voters: Voters = once(("nearest", *map(file_key, paths)), load)
    return lambda features, fold, hashes: voters.votes(features, hashes)


def _fit_trees(items: Items, ctx: Context[Config], out: str) -> Arrays:
    from labelops.opinions import trees

    n_features = items.schema.field("embedding").type.list_size
    some = first_items(items, trees.n_items(n_features, _n_states(ctx)), ctx)
    fitted = trees.fit_trees(
        some.features,
        some.given,
        some.fold,
        n_classes=ctx.n_classes,
        n_folds=ctx.config.folds,
        n_threads=len(os.sched_getaffinity(0)),
    )
    return dict(fitted.arrays())


def _open_trees(ctx: Context[Config]) -> heads.Said:
    from labelops.fast.trees import predict_trees
    from labelops.opinions.trees import Trees

    fitted, link = Trees.of(ctx.own("trees")), given_of(ctx.columns).link
    return lambda features, fold, hashes: predict_trees(fitted, features, fold, link=link)


def _fit_networks(items: Items, ctx: Context[Config], out: str) -> Arrays:
    from labelops.nn import shallow
    from labelops.nn.network_heads import fit_networks

    n_features = items.schema.field("embedding").type.list_size
    some = first_items(items, shallow.n_items(n_features), ctx)
    fitted = fit_networks(
        some.features,
        some.given,
        some.fold,
        n_classes=ctx.n_classes,
        n_folds=ctx.config.folds,
    )
    keep(fitted._asdict(), out)
    return {"n": np.array(len(some.given))}


def _open_networks(ctx: Context[Config]) -> heads.Said:
    from labelops.nn.network_heads import predict_networks
    from labelops.nn.shallow import Networks

    fitted = kept("networks", Networks, ctx)
    return lambda features, fold, hashes: predict_networks(fitted, features, fold)


def _fit_prototypes(items: Items, ctx: Context[Config], out: str) -> Arrays:
    from labelops.nn import prototypes

    n_features = items.schema.field("embedding").type.list_size
    some = first_items(items, prototypes.n_items(n_features), ctx)
    fitted = prototypes.fit_prototypes(
        some.features, some.given, some.fold, n_classes=ctx.n_classes, n_folds=ctx.config.folds
    )
    keep(fitted._asdict(), out)
    return {"n": np.array(len(some.given))}


def _open_prototypes(ctx: Context[Config]) -> heads.Said:
    from labelops.nn.prototypes import Prototypes, predict_prototypes

    fitted = kept("prototypes", Prototypes, ctx)
    return lambda features, fold, hashes: predict_prototypes(fitted, features, fold)


HEADS: dict[HeadKind, Head] = {
    "linear": Head("heads", heads.fit, heads.open_linear),
    "nearest": Head("nearest", _keep_references, _open_references),
    "trees": Head("trees", _fit_trees, _open_trees),
    "network": Head("networks", _fit_networks, _open_networks),
    # As linear as the linear one: where both agree, no second opinion does.
    "prototypes": Head("prototypes", _fit_prototypes, _open_prototypes, votes=False),
}


SET_HEADS: dict[HeadKind, Head] = {
    **{kind: HEADS[kind] for kind in ("linear", "nearest", "trees")},
    "network": Head("networks", fit_missing, open_missing),
}


def _fit_candidates(items: Items, ctx: Context[Config], out: str, *, hidden: int) -> Arrays:
    from labelops.nn import shallow
    from labelops.nn.candidate_heads import CHOICES, fit_candidates, likeliest

    config = ctx.config
    n_features = items.schema.field("embedding").type.list_size
    # What all networks say of all items is held, too.
    n_numbers = max(n_features, config.folds * ctx.n_classes)
    some = first_items(items, shallow.n_items(n_numbers), ctx)
    methods = CHOICES if config.candidates == "likeliest" else (config.candidates,)
    items_of = (some.features, some.given, some.fold)
    how = likeliest(*items_of, methods=methods, n_folds=config.folds, hidden=hidden)
    fitted = fit_candidates(*items_of, n_folds=config.folds, hidden=hidden, **how._asdict())
    keep(fitted._asdict(), out)
    return {"n": np.array(len(some.given)), "method": np.array(how.method)}


def _open_candidates(ctx: Context[Config], *, step: str) -> heads.Said:
    from labelops.nn.candidate_heads import predict_candidates
    from labelops.nn.shallow import Networks

    fitted = kept(step, Networks, ctx)
    return lambda features, fold, hashes: predict_candidates(fitted, features, fold)


CANDIDATE_HEADS: dict[HeadKind, Head] = {
    "linear": Head(
        "heads", partial(_fit_candidates, hidden=0), partial(_open_candidates, step="heads")
    ),
    "nearest": HEADS["nearest"],
    "network": Head(
        "networks", partial(_fit_candidates, hidden=256), partial(_open_candidates, step="networks")
    ),
}
