"""Which classes there are, and which of them a label means."""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.storage import texts
from pipelines.storage.forms import convert, is_bytes, is_number, is_text
from pipelines.storage.wording import several, shown

NAMED = 8
"""So many offenders are named in a message."""

UNLABELLED = -1
"""Stands for "no label" where classes have names, as in Hugging Face's test sets."""

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


def check_label_type(kind: pa.DataType, column: str = "label") -> None:
    """Refuse labels that are neither whole numbers nor text.

    Raises
    ------
    DataError
        If they are something else.
    """
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (is_text(plain) or is_bytes(plain) or is_number(plain) or pa.types.is_null(plain)):
        raise DataError(
            f"source: column {column!r} must hold integers or strings, got {kind}. Lists of labels "
            "go into 'labels'; a rating goes into 'score_mean'"
        )


def plain(labels: pa.Array, column: str = "label") -> pa.Array:
    """Return labels as strings or 64-bit integers; floats must be whole numbers.

    Raises
    ------
    DataError
        If a label is neither text nor an integer that fits.
    """
    kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
    if is_text(kind) or is_bytes(kind) or pa.types.is_null(kind):
        return convert(labels, pa.string(), column)
    try:
        return convert(labels, pa.int64(), column)
    except DataError as err:
        if not pa.types.is_floating(kind):
            raise
        raise DataError(
            f"source: column {column!r} must hold classes, integers or strings, got {kind} with "
            f"values that are no whole numbers ({err.__cause__}). If they are ratings, they go "
            "into 'score_mean'; if they are classes, write them as integers or strings"
        ) from err


def distinct(labels: pa.Array) -> Arrays:
    """Return the distinct ones of plain labels, sorted."""
    values = pc.unique(labels).drop_null()
    if pa.types.is_string(values.type):
        return texts.pack(values.to_pylist())
    return {"numbers": np.sort(values.to_numpy(zero_copy_only=False))}


def merge_labels(a: Arrays, b: Arrays) -> Arrays:
    """Return the union of two shards' distinct labels."""
    if "text" in a:
        return texts.pack([*texts.unpack(a), *texts.unpack(b)])
    return {name: np.union1d(a[name], b[name]) for name in a}


def name_classes(summary: Arrays, ctx: Context) -> Arrays:
    """Decide the classes: recipe, then ClassLabel metadata or width of pred_probs, then data.

    Raises
    ------
    DataError
        If labels cannot be class ids of the classes that were named, or there are no classes.
    """
    named: Sequence[str] = ctx.data.classes or ctx.classes
    width = _n_columns(ctx)
    if "text" in summary:
        names, notices = _names_of_texts(list(named), texts.unpack(summary), width)
        values = np.empty(0, np.int64)
    else:
        values, notices = _values_of_numbers(
            len(named) or width, summary["numbers"], named, is_fixed=not ctx.data.classes
        )
        is_truth = pa.types.is_boolean(ctx.label_type)
        names = list(named) or [
            str(bool(value)).lower() if is_truth else str(value) for value in values.tolist()
        ]
    texts.check_names(names)
    if width is not None and width != len(names):
        raise DataError(
            f"source: pred_probs must have one column for each class; {len(names)} classes were "
            f"expected ({some(names)}), got {width} columns. Name the classes of the model in "
            "data.classes, in the order of its outputs"
        )
    if not names and "labels" in ctx.columns:
        raise DataError(
            "source: lists with labels were expected in 'labels', all of them are empty. Was the "
            "wrong column mapped to it? Classes that nobody has can be named in data.classes"
        )
    return {
        "names": np.array(names, dtype=np.str_),
        "values": values.astype(np.int64),
        "is_named": np.array(bool(named)),
        "notices": np.array([*notices, *texts.alike(names)], dtype=np.str_),
    }


def _n_columns(ctx: Context) -> int | None:
    """Return how many columns ready probabilities have, as far as their type says it."""
    kinds = [ctx.types.get("pred_probs")]
    kinds += [
        ctx.source_schema.field(name).type
        for name in ctx.data.opinions
        if name in ctx.source_schema.names
    ]
    fixed = [kind for kind in kinds if kind is not None and pa.types.is_fixed_size_list(kind)]
    return int(fixed[0].list_size) if fixed else None


def _names_of_texts(
    named: list[str], present: list[str], width: int | None
) -> tuple[list[str], list[str]]:
    """Return the names of classes that labels call by text, and what was guessed of their order."""
    if named or width is None:
        return named or present, []
    if present and all(_WHOLE.fullmatch(text) for text in present):
        by_number = sorted(present, key=int)
        if len(present) < width and int(by_number[0]) >= 0 and int(by_number[-1]) < width:
            by_number = [str(number) for number in range(width)]
        if by_number != sorted(by_number):
            # As text '10' comes before '2': programs that sort text number columns so.
            raise DataError(
                f"source: the order of the columns of pred_probs must be known; labels are text "
                f"that are numbers ({some(by_number)}), which may be in the order of numbers or of "
                f"text ({some(sorted(by_number))}). Name the classes in data.classes, in the order "
                "of the columns, or write labels as integers"
            )
        present = by_number
    return present, [
        f"the {len(present):,} columns of pred_probs are taken to be in alphabetical order of the "
        f"labels ({some(present)}); name them in data.classes if their order is another"
    ]


def _values_of_numbers(
    n_classes: int | None, present: np.ndarray, named: Sequence[str], *, is_fixed: bool
) -> tuple[np.ndarray, list[str]]:
    """Return which number stands for each class, and what was guessed of it.

    There are as many classes as have names, or as pred_probs has columns, None if neither is there;
    fixed names are those of ids from 0 on, as ClassLabel has them.
    """
    if n_classes is None:
        return present, []
    if named and is_fixed:
        return np.arange(n_classes), []
    known = present[present != UNLABELLED] if named else present
    if known.size == 0 or (known[0] >= 0 and known[-1] < n_classes):
        return np.arange(n_classes), []
    of = f"{n_classes:,} classes" if named else f"{n_classes:,} columns of pred_probs"
    if known[0] >= 1 and known[-1] == n_classes:
        return np.arange(1, n_classes + 1), [
            f"labels are numbered from 1 to {n_classes:,}: the {of} are taken to be these, in "
            "their order"
        ]
    if known.size == n_classes and not named:
        return known, [
            f"labels are the numbers {some([str(n) for n in known])}: the {of} are taken to be "
            "these, in ascending order"
        ]
    return np.arange(n_classes), []


def some(names: Sequence[str] | np.ndarray) -> str:
    """Return the first few names as a message shows them."""
    return several([str(name) for name in names[:NAMED]], NAMED, len(names))


def known_labels(ctx: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return the class names, and how labels of the data call the classes."""
    names, values = (ctx.own("values")[name] for name in ("names", "values"))
    return names, (names if values.size == 0 else values)


def classes_of(labels: pa.Array, classes: np.ndarray) -> np.ndarray:
    """Return the positions of plain labels among the classes; −1 for null and for no class."""
    known = pa.array(classes.tolist(), labels.type)
    index = pc.index_in(labels, value_set=known, skip_nulls=True)
    positions: np.ndarray = index.fill_null(-1).to_numpy(zero_copy_only=False)
    return positions.astype(np.int32)


def out_of_range(label: object, names: np.ndarray) -> str:
    """Return why a row is rejected whose label is no class."""
    of = f"the {names.size} classes ({some(names)})"
    return f"class out of range: label {shown(label)} is none of {of}"


def said_of_single(n_given: np.ndarray, ctx: Context) -> Arrays:
    """Return a sentence on classes of one item, if there are any, as notices of a result."""
    names = ctx.own("values")["names"].tolist()
    single = [names[k] for k in np.flatnonzero(n_given == 1)]
    if not single:
        return {}
    said = (
        f"{len(single)} of {len(names)} classes have one item: {some(single)}; no model can learn "
        "them, and no other item is taken for them. Are they misspelt?"
    )
    return {"notices": np.array([said], dtype=np.str_)}


def odd_classes(n_given: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return which classes are most probably slips: of one item, or the rarer of look-alikes.

    Parameters
    ----------
    n_given
        Items of each class, shape (K,).
    names
        K names.

    Returns
    -------
    bool, shape (K,).

    Examples
    --------
    >>> odd_classes(np.array([90, 3, 1, 80]), ["truck", "Truck ", "trcuk", "cat"]).tolist()
    [False, True, True, False]
    """
    group = np.array(texts.firsts(names), np.int64)
    by_count = np.lexsort((np.arange(len(names)), -n_given, group))
    is_most = np.zeros(len(names), bool)
    is_most[by_count[np.r_[True, np.diff(group[by_count]) > 0]]] = True
    return np.asarray(~is_most | (n_given == 1))


def check_absent(n_given: np.ndarray, ctx: Context) -> None:
    """Refuse classes without an item, unless that was allowed.

    Raises
    ------
    DataError
        If a class has none.
    """
    classes = ctx.own("values")["names"].tolist()
    absent = [classes[k] for k in np.flatnonzero(n_given == 0)]
    if absent and ctx.data.absent_classes == "refuse":
        raise DataError(
            f"source: every class must have an item; {len(absent)} of {len(classes)} have none: "
            f"{some(absent)}. Leave them out of data.classes, or set data.absent_classes = "
            "'allow' if this is intended"
        )
