"""What a stage lacks, said in the words of the data contract, with the column that may be it."""

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from pipelines.errors import DataError, LabelopsError
from pipelines.registry import STAGES, load_space, load_stage
from pipelines.storage.contract import SPACES, known_columns
from pipelines.storage.source import Source
from pipelines.storage.wording import nearest, several

NAMED = 20
"""So many columns of the source are named in a message."""

HOLDS = {
    "item_id": "a unique id, text or whole number",
    "image": "encoded pictures",
    "features": "vectors of one length",
    "text": "text",
    "label": "one class per item, text or whole number",
    "labels": "lists of classes",
    "labels_negative": "lists of classes that are ruled out",
    "positive": "true, or null where nothing is known",
    "candidates": "lists of classes, of which exactly one is true",
    "bag_id": "the bag of each item, text or whole number",
    "pred_probs": "lists with one probability per class",
    "topk_ids": "lists of the most probable classes",
    "topk_probs": "lists of the probabilities of 'topk_ids'",
    "tail_prob": "the probability of all other classes",
}
"""What columns of the contract hold."""

ALSO_CALLED = {
    "item_id": ("id", "uid", "uuid", "key", "filename", "index"),
    "image": ("img", "picture", "photo", "jpg", "png"),
    "features": ("feature", "embedding", "embeddings", "vector", "x", "emb"),
    "text": ("sentence", "content", "document", "review"),
    "label": ("target", "class", "category", "y", "annotation", "class_id", "label_id"),
    "labels": ("tags", "categories", "classes", "targets", "label_list"),
    "candidates": ("candidate_labels", "partial_labels", "candidate_set"),
    "bag_id": ("bag", "group", "group_id"),
    "pred_probs": ("probs", "probabilities", "predictions", "proba", "scores"),
}
"""What people call columns of the contract."""


def given_from() -> dict[str, str]:
    """Return which column of the source each column is made of that stage `source` leaves."""
    spaces = [load_space(name) for name in SPACES]
    return {
        given: source
        for space in spaces
        for source, given in zip(space.source, space.given, strict=True)
    }


class NoColumnError(DataError):
    """None of several columns is there, of which a stage needs one."""

    def __init__(self, any_of: Sequence[str]) -> None:
        super().__init__(f"one of the columns {several(any_of, NAMED)} was expected")
        self.any_of = tuple(any_of)


def no_column(stage: str, err: NoColumnError, source: Source) -> DataError:
    """Return the error that says which columns would do, and which the source has."""
    wanted = [name for name in err.any_of if name in HOLDS]
    would_do = ", ".join(f"{name!r} ({HOLDS[name]})" for name in wanted)
    hints = [hint for name in wanted if (hint := _mapping(name, source))]
    single = [
        field.name
        for field in source.schema
        if pa.types.is_floating(field.type) and field.name not in source.columns.values()
    ]
    if hints:
        remedy = f"Map yours: {hints[0]}"
    elif single:
        remedy = (
            f'Columns of a table ({several(single, 3)}) are named with data.features = ["*"], or '
            "one by one"
        )
    else:
        remedy = f"Map yours with data.columns.{wanted[0]} = '…', or add one"
    return DataError(
        f"stage {stage!r}: a column to predict from was expected, one of {would_do}; "
        f"{_has(source)}. {remedy}"
    )


def missing(
    stage: str,
    columns: Sequence[str],
    source: Source,
    *,
    there: frozenset[str],
    earlier: Mapping[str, str | None],
) -> DataError:
    """Return the error for a stage that lacks columns; `there` is what it could read.

    `earlier` are the stages before it, with why they have nothing to do, or None.
    """
    who = f"stage {stage!r}"
    is_listed = any(name.split("@")[0] == "source" for name in earlier)
    made_of = given_from()
    from_source = [name for name in columns if name in (*made_of, "item_id", "item_hash")]
    if from_source and not is_listed:
        return DataError(
            f"{who}: stage 'source' was expected before it, which reads ids and labels; listed "
            f"before it: {several(list(earlier), NAMED) or 'nothing'}. List 'source' first"
        )
    given = [made_of[name] for name in columns if name in made_of]
    # Stages write columns of the contract, too, beside others: then it is the stage that lacks.
    if given or all(name in known_columns() for name in columns):
        return _of_the_source(who, (given or list(columns))[0], source, there)
    return _of_a_stage(who, stage, columns, there, earlier)


def no_beliefs(stage: str, kind: str, earlier: Sequence[str]) -> DataError:
    """Return the error for a stage that asks for beliefs which no earlier stage offers."""
    offering = [
        name
        for name in STAGES
        if (beliefs := load_stage(name).beliefs) is not None and beliefs.kind == kind
    ]
    return DataError(
        f"stage {stage!r}: a stage before it was expected that says what is believed of labels "
        f"({' or '.join(map(repr, offering)) or 'none is registered'}), listed before it: "
        f"{several(list(earlier), NAMED) or 'nothing'}. List one of them before {stage!r}"
    )


def _of_the_source(who: str, ours: str, source: Source, there: frozenset[str]) -> DataError:
    holds = f" ({HOLDS[ours]})" if ours in HOLDS else ""
    hint = _mapping(ours, source)
    if ours == "label" and "given_ids" in there:
        remedy = "Recipe 'multilabel' is for lists of labels"
    elif ours == "labels" and "given" in there:
        remedy = "Recipe 'audit' is for one label per item"
    elif hint:
        remedy = f"Map yours: {hint}"
    else:
        remedy = f"Map yours with data.columns.{ours} = '…'"
    return DataError(f"{who}: a column {ours!r}{holds} was expected; {_has(source)}. {remedy}")


def _of_a_stage(
    who: str,
    stage: str,
    columns: Sequence[str],
    there: frozenset[str],
    earlier: Mapping[str, str | None],
) -> DataError:
    writers = _writers(columns, there)
    idle = next((name for name in earlier if name in writers and earlier[name]), None)
    if idle is not None:
        return DataError(
            f"{who}: results of stage {idle!r} were expected, which has nothing to do: "
            f"{earlier[idle]}. Change that, or leave {stage!r} out of the recipe"
        )
    before = several(list(earlier), NAMED) or "nothing"
    return DataError(
        f"{who}: results of stage {' or '.join(map(repr, writers)) or 'another stage'} were "
        f"expected, listed before it: {before}. List "
        f"{repr(writers[0]) if writers else 'it'} before {stage!r}"
    )


def _writers(columns: Sequence[str], there: frozenset[str]) -> list[str]:
    """Return the stages that write some columns; those that could work on this data, if any can."""
    writers: dict[str, bool] = {}
    for name in STAGES:
        stage = load_stage(name)
        try:
            config = stage.config()
            if set(columns) & set(stage.writes(config, there | frozenset(columns))):
                writers[name] = set(stage.reads(config, there | frozenset(columns))) <= there
        except (LabelopsError, AssertionError):
            continue
    return [name for name, can in writers.items() if can] or list(writers)


def _has(source: Source) -> str:
    # Under their own names, also those that are not mapped to anything.
    return f"the source has {several(source.schema.names, NAMED) or 'none'}; in {source.uri}"


def _mapping(ours: str, source: Source) -> str | None:
    """Return the setting that maps the column that was probably meant; None without one."""
    free = {
        field.name: field.type
        for field in source.schema
        if field.name not in source.columns.values()
    }
    fitting = [name for name, kind in free.items() if ours not in FITS or FITS[ours](kind)]
    called = dict.fromkeys((ours, *ALSO_CALLED.get(ours, ())), ours)
    theirs = next((name for name in fitting if nearest(name, called) is not None), None)
    if theirs is None and len(fitting) == 1 and ours in ("label", "labels", "bag_id"):
        theirs = fitting[0]
    return None if theirs is None else f"data.columns.{ours} = {theirs!r}"


def _is_word(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(plain) or pa.types.is_large_string(plain)
    return bool(is_text or pa.types.is_integer(plain) or pa.types.is_boolean(plain))


def _is_list_of_words(kind: pa.DataType) -> bool:
    return (
        hasattr(kind, "value_type")
        and not pa.types.is_dictionary(kind)
        and _is_word(kind.value_type)
    )


def _is_vector(kind: pa.DataType) -> bool:
    inner = getattr(kind, "value_type", None)
    return inner is not None and bool(pa.types.is_floating(inner))


def _is_picture(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind) or pa.types.is_binary(kind))


FITS: Mapping[str, Callable[[pa.DataType], bool]] = {
    "item_id": _is_word,
    "label": _is_word,
    "bag_id": _is_word,
    "labels": _is_list_of_words,
    "labels_negative": _is_list_of_words,
    "features": _is_vector,
    "pred_probs": _is_vector,
    "topk_ids": _is_list_of_words,
    "topk_probs": _is_vector,
    "image": _is_picture,
}
"""Which types a column of the contract may have, as far as that tells who is meant."""
