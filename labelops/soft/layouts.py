"""Soft labels as published stores hold them: FKD, ReLabel and TinyViT.

Arrays of one picture, or bytes of records; files are somebody else's. What these stores leave out
cannot be made up: FKD has no given class and no mass of the rest, TinyViT no box but a seed.
"""

# M views of a picture, V views, K classes, k kept

from typing import Literal, NamedTuple, get_args

import numpy as np

from labelops.label_maps import LabelMaps
from labelops.soft.labels import id_type
from labelops.soft.views import SoftViews

FkdKind = Literal["hard", "smoothing", "marginal_smoothing", "marginal_renorm"]
"""How a reader of FKD's files fills the rest; files of the last two are alike."""


class FkdPicture(NamedTuple):
    """What FKD stores of a picture.

    Attributes
    ----------
    shares : (top / H, left / W, height / H, width / W) of each view, shape (M, 4).
    is_flipped : bool, shape (M,).
    label : class (M,), for *hard*; class and probability (M, 2), for *smoothing*; else classes and
        probabilities (M, 2, k); all of one float type.
    """

    shares: np.ndarray
    is_flipped: np.ndarray
    label: np.ndarray


def from_fkd(
    picture: FkdPicture, *, kind: FkdKind, n_classes: int, given: int
) -> tuple[SoftViews, np.ndarray]:
    """Return the views of a picture, as probabilities.

    Parameters
    ----------
    picture
        As stored.
    kind
        As what it was stored.
    n_classes
        K.
    given
        The picture's class. Where it is not among the stored it is taken for one of the others.

    Returns
    -------
    Views, coding *prob* in f32, and whether each is flipped.

    Raises
    ------
    ValueError
        If shapes do not fit, or a class is none of 0 … K − 1: of half-precision files above 2 048
        classes many ids are another class than they were, and nothing tells which.

    References
    ----------
    Shen, Xing: A fast knowledge distillation framework for visual recognition. ECCV 2022; layout as
    in the authors' repository.

    Examples
    --------
    >>> label = np.array([[[7.0, 2.0], [0.5, 0.25]]], np.float32)
    >>> stored = FkdPicture(np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([False]), label)
    >>> views, _ = from_fkd(stored, kind="marginal_smoothing", n_classes=10, given=7)
    >>> views.ids.tolist(), views.values.tolist(), views.tail.tolist()
    ([[7, 2]], [[0.5, 0.25]], [0.25])
    """
    m, label = len(picture.shares), np.asarray(picture.label)
    shapes = {"hard": (m,), "smoothing": (m, 2)}
    fits = label.shape == shapes.get(kind, label.shape) and kind in get_args(FkdKind)
    if not fits or (kind not in shapes and (label.ndim != 3 or label.shape[:2] != (m, 2))):
        raise ValueError(
            f"from_fkd: labels (M,) hard, (M, 2) smoothing or (M, 2, k) marginal were expected for "
            f"{m} views, got {kind} of shape {label.shape}"
        )
    if label.dtype == np.float16 and n_classes > 2049:
        raise ValueError(
            f"from_fkd: class ids of {n_classes} classes cannot be told in half precision, which "
            "is exact up to 2,048; make the labels again, in single precision"
        )
    pair = label.reshape(m, 1, 1) if kind == "hard" else label.reshape(m, 2, -1)
    ids = pair[:, 0].astype(np.int64)
    probs = np.ones(ids.shape) if kind == "hard" else pair[:, 1].astype(np.float64)
    _check_ids(ids, n_classes, "from_fkd")
    _check_ids(np.array([given]), n_classes, "from_fkd")
    tail = np.maximum(1.0 - probs.sum(axis=1), 0.0)
    if kind == "marginal_renorm":
        probs, tail = probs / probs.sum(axis=1, keepdims=True), np.zeros(m)
    return _views(ids, probs, tail, np.full(m, given), n_classes), np.asarray(
        picture.is_flipped, bool
    )


def _views(
    ids: np.ndarray, probs: np.ndarray, tail: np.ndarray, given: np.ndarray, n_classes: int
) -> SoftViews:
    """Return views; given classes that are not among the stored have an even share of the rest."""
    order = np.argsort(-probs, axis=1, kind="stable")
    ids, probs = np.take_along_axis(ids, order, axis=1), np.take_along_axis(probs, order, axis=1)
    is_given = ids == given[:, None]
    has, share = is_given.any(axis=1), tail / max(n_classes - ids.shape[1], 1)
    return SoftViews(
        ids.astype(id_type(n_classes)),
        probs.astype(np.float32),
        given.astype(id_type(n_classes)),
        np.where(has, np.where(is_given, probs, 0).sum(axis=1), share).astype(np.float32),
        np.where(has, tail, tail - share).astype(np.float32),
        np.zeros(len(ids), np.float32),
    )


def to_fkd(
    views: SoftViews, shares: np.ndarray, is_flipped: np.ndarray, *, kind: FkdKind
) -> FkdPicture:
    """Return the views of a picture, stored as probabilities in f16 or f32, as FKD holds them.

    Raises
    ------
    ValueError
        If a class id is not exact in single precision.
    """
    if views.ids.dtype != np.uint16 and views.ids.size and int(views.ids.max()) > 1 << 24:
        raise ValueError("to_fkd: class ids up to 2²⁴ were expected, which single precision holds")
    ids, probs = views.ids.astype(np.float32), views.values.astype(np.float32)
    if kind == "hard":
        label = ids[:, 0]
    elif kind == "smoothing":
        label = np.stack([ids[:, 0], probs[:, 0]], axis=1)
    else:
        label = np.stack([ids, probs], axis=1)
    return FkdPicture(shares.astype(np.float32), np.asarray(is_flipped, bool), label)


def from_relabel(stored: np.ndarray, *, n_classes: int) -> LabelMaps:
    """Return a picture's label map from ReLabel's tensor: scores and classes, shape (2, k, h, w).

    Scores of classes that are not stored are not known; ReLabel takes them for 0, and so does this,
    so that what is pooled is what its authors pool.

    Raises
    ------
    ValueError
        If the shape does not fit, or a class is none of 0 … K − 1.

    References
    ----------
    Yun et al.: Re-labeling ImageNet. CVPR 2021; layout as in the authors' repository. Whether the
    maps they published are transposed is not known: compare both with given classes before use.

    Examples
    --------
    >>> stored = np.array([[[[9.0]], [[3.0]]], [[[1.0]], [[0.0]]]])
    >>> maps = from_relabel(stored, n_classes=4)
    >>> maps.ids.ravel().tolist(), maps.scores.ravel().tolist(), maps.rest.ravel().tolist()
    ([1, 0], [9.0, 3.0], [0.0])
    """
    if stored.ndim != 4 or stored.shape[0] != 2:
        raise ValueError(
            f"from_relabel: scores and classes of shape (2, k, h, w) were expected, got "
            f"{stored.shape}"
        )
    ids = stored[1].astype(np.int64)
    _check_ids(ids, n_classes, "from_relabel")
    scores = stored[0].astype(np.float32)
    rest = np.zeros((1, *stored.shape[2:]), np.float32)
    return LabelMaps(ids[None].astype(id_type(n_classes)), scores[None], rest, n_classes)


def to_relabel(maps: LabelMaps) -> np.ndarray:
    """Return label maps as ReLabel holds them, float32, shape (N, 2, k, h, w).

    Less the mean of what is not stored, cell by cell, since it is read back as 0; softmax does not
    see the difference.

    Examples
    --------
    >>> stored = np.array([[[[9.0]], [[3.0]]], [[[1.0]], [[0.0]]]], np.float32)
    >>> bool((to_relabel(from_relabel(stored, n_classes=4))[0] == stored).all())
    True
    """
    scores = maps.scores.astype(np.float32) - maps.rest.astype(np.float32)[:, None]
    return np.stack([scores, maps.ids.astype(np.float32)], axis=1)


def _check_ids(ids: np.ndarray, n_classes: int, who: str) -> None:
    if ids.size and not (ids.min() >= 0 and ids.max() < n_classes):
        raise ValueError(
            f"{who}: classes 0 … {n_classes - 1} were expected, got {ids.min()} … {ids.max()}"
        )


def tinyvit_record(k: int) -> np.dtype:
    """Return what TinyViT stores of a view: a seed, k classes, k probabilities; little-endian.

    Examples
    --------
    >>> tinyvit_record(100).itemsize
    404
    """
    return np.dtype([("seed", "<i4"), ("ids", "<i2", (k,)), ("probs", "<f2", (k,))])


def from_tinyvit(
    records: bytes, given: np.ndarray, *, k: int, n_classes: int
) -> tuple[SoftViews, np.ndarray]:
    """Return the views of a file of values, in its order, and the seed of each.

    A view is the picture as augmented with that seed by the program that wrote it; nothing else can
    make it again.

    Parameters
    ----------
    records
        Content of a `-values.bin`.
    given
        Classes of its keys, shape (V,). Where one is not among the stored it is taken for one of
        the others.
    k, n_classes
        As it was written.

    Raises
    ------
    ValueError
        If bytes are left over, or a class is none of 0 … K − 1: above 32 767 they have turned
        negative.

    References
    ----------
    Wu et al.: TinyViT: fast pretraining distillation for small vision transformers. ECCV 2022;
    layout as in the authors' repository.

    Examples
    --------
    >>> one = np.array([(5, [2, 0], [0.5, 0.25])], tinyvit_record(2))
    >>> views, seeds = from_tinyvit(one.tobytes(), np.array([0]), k=2, n_classes=4)
    >>> views.ids.tolist(), views.values.tolist(), views.tail.tolist(), seeds.tolist()
    ([[2, 0]], [[0.5, 0.25]], [0.25], [5])
    """
    size = tinyvit_record(k).itemsize
    if len(records) != size * len(given):
        raise ValueError(
            f"from_tinyvit: {len(given)} records of {size} bytes were expected for k={k}, got "
            f"{len(records)} bytes"
        )
    rows = np.frombuffer(records, tinyvit_record(k))
    ids, probs = rows["ids"].astype(np.int64), rows["probs"].astype(np.float64)
    _check_ids(ids, n_classes, "from_tinyvit")
    _check_ids(np.asarray(given), n_classes, "from_tinyvit")
    tail = np.maximum(1.0 - probs.sum(axis=1), 0.0)
    return _views(ids, probs, tail, np.asarray(given), n_classes), rows["seed"].astype(np.int32)


def to_tinyvit(views: SoftViews, seeds: np.ndarray) -> bytes:
    """Return views, stored as probabilities in f16 or f32, as the content of a `-values.bin`.

    Raises
    ------
    ValueError
        If a class id is above 32 767.
    """
    if views.ids.size and int(views.ids.max()) > np.iinfo(np.int16).max:
        raise ValueError(
            f"to_tinyvit: class ids up to 32,767 were expected, got {int(views.ids.max())}"
        )
    rows = np.zeros(len(views.ids), tinyvit_record(views.ids.shape[1]))
    rows["seed"], rows["ids"], rows["probs"] = seeds, views.ids, views.values
    return rows.tobytes()
