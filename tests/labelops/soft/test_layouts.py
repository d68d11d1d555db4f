"""Oracles: readers as their authors wrote them, one picture at a time."""

import numpy as np
import pytest
from scipy.special import softmax

from labelops.label_maps import densify, pool, sparsify_maps
from labelops.soft.layouts import (
    FkdPicture,
    from_fkd,
    from_relabel,
    from_tinyvit,
    tinyvit_record,
    to_fkd,
    to_relabel,
    to_tinyvit,
)
from labelops.soft.views import Coding, decode, encode

WHOLE = Coding("prob", "f32", 8)


def recovered(label: np.ndarray, kind: str, n_classes: int) -> list[float]:
    """Return what FKD's reader makes of the label of a view."""
    if kind == "hard":
        return [float(c == int(label)) for c in range(n_classes)]
    ids, values = ([label[0]], [label[1]]) if kind == "smoothing" else label.tolist()
    rest = (1 - sum(values)) / (n_classes - len(ids)) if kind != "marginal_renorm" else 0.0
    dense = [rest] * n_classes
    for c, value in zip(ids, values, strict=True):
        dense[int(c)] = float(value)
    return [x / sum(dense) for x in dense]


@pytest.mark.parametrize("kind", ["hard", "smoothing", "marginal_smoothing", "marginal_renorm"])
@pytest.mark.parametrize("given", [0, 7])
def test_fkd__is_read_as_its_reader_reads_it(kind, given):
    z = np.random.default_rng(0).normal(size=(6, 8)) * 2
    views = encode(z, np.full(6, given), coding=WHOLE, k=3)
    stored = to_fkd(views, np.tile([0.0, 0.0, 1.0, 1.0], (6, 1)), np.arange(6) % 2 > 0, kind=kind)
    back, flipped = from_fkd(stored, kind=kind, n_classes=8, given=given)
    assert flipped.tolist() == [False, True] * 3
    dense = decode(back, coding=WHOLE, rest="even")
    for i in range(6):
        np.testing.assert_allclose(dense[i], recovered(stored.label[i], kind, 8), atol=1e-6)
    np.testing.assert_array_equal(back.given, given)


def test_fkd__says_what_is_wrong():
    box, no = np.array([[0.0, 0.0, 1.0, 1.0]]), np.array([False])
    with pytest.raises(ValueError, match="\\(M, 2, k\\) marginal were expected"):
        from_fkd(FkdPicture(box, no, np.ones((1, 2))), kind="marginal_renorm", n_classes=9, given=0)
    with pytest.raises(ValueError, match="got marginal_renorm_k5"):
        from_fkd(
            FkdPicture(box, no, np.ones((1, 2, 5))), kind="marginal_renorm_k5", n_classes=9, given=0
        )
    label = np.array([[[9.0], [0.5]]])
    with pytest.raises(ValueError, match="classes 0 … 8 were expected, got 9"):
        from_fkd(FkdPicture(box, no, label), kind="marginal_smoothing", n_classes=9, given=0)
    half = np.array([[[2048.0], [0.5]]], np.float16)
    with pytest.raises(ValueError, match="cannot be told in half precision"):
        from_fkd(FkdPicture(box, no, half), kind="marginal_smoothing", n_classes=21_841, given=0)


def test_relabel__pools_as_its_authors_do_from_zeros():
    scores = np.random.default_rng(1).normal(size=(1, 6, 3, 4)) + 5
    dense = densify(sparsify_maps(scores, k=2, dtype=np.float64))
    kept = sparsify_maps(scores, k=2, dtype=np.float64)
    stored = np.stack([kept.scores[0], kept.ids[0]])
    theirs = np.zeros((1, 6, 3, 4))
    for j in range(2):
        np.put_along_axis(theirs, kept.ids[:, j : j + 1].astype(int), kept.scores[:, j : j + 1], 1)
    box = np.array([[0.1, 0.2, 0.7, 0.9]])
    got = pool(from_relabel(stored, n_classes=6), box)
    want = pool(sparsify_maps(theirs, k=6, dtype=np.float64), box)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    # Written by us, what they pool is what we do.
    ours = pool(from_relabel(to_relabel(kept)[0], n_classes=6), box)
    exact = pool(sparsify_maps(dense, k=6, dtype=np.float64), box)
    np.testing.assert_allclose(softmax(ours), softmax(exact), rtol=1e-6)
    with pytest.raises(ValueError, match="\\(2, k, h, w\\) were expected"):
        from_relabel(stored[:1], n_classes=6)


def test_tinyvit__is_read_as_its_reader_reads_it():
    z = np.random.default_rng(2).normal(size=(5, 8))
    given = np.array([0, 1, 2, 3, 7])
    views = encode(z, given, coding=Coding("prob", "f16", 8), k=3)
    written = to_tinyvit(views, np.arange(5) + 10)
    assert len(written) == 5 * (4 + 2 * 3 + 2 * 3)
    for i in range(5):
        own = written[16 * i : 16 * i + 16]
        assert int(np.frombuffer(own[:4], np.int32)[0]) == i + 10
        np.testing.assert_array_equal(np.frombuffer(own[4:10], np.int16), views.ids[i])
        np.testing.assert_array_equal(np.frombuffer(own[10:], np.float16), views.values[i])
    back, seeds = from_tinyvit(written, given, k=3, n_classes=8)
    assert seeds.tolist() == [10, 11, 12, 13, 14]
    dense = decode(back, coding=WHOLE)
    for i in range(5):
        label = np.stack([views.ids[i].astype(float), views.values[i].astype(float)])
        np.testing.assert_allclose(dense[i], recovered(label, "smoothing5", 8), atol=1e-6)


def test_tinyvit__says_what_is_wrong():
    with pytest.raises(ValueError, match="2 records of 12 bytes were expected for k=2, got 23"):
        from_tinyvit(b"0" * 23, np.zeros(2, int), k=2, n_classes=4)
    turned = np.array([(5, [-2, 0], [0.5, 0.25])], tinyvit_record(2)).tobytes()
    with pytest.raises(ValueError, match="classes 0 … 39999 were expected, got -2"):
        from_tinyvit(turned, np.zeros(1, int), k=2, n_classes=40_000)
    z = np.zeros((1, 40_000))
    z[0, 39_999] = 5
    views = encode(z, np.zeros(1, int), coding=Coding("prob", "f16", 40_000), k=2)
    with pytest.raises(ValueError, match="up to 32,767 were expected, got 39999"):
        to_tinyvit(views, np.zeros(1, np.int32))
