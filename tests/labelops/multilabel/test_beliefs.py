"""Oracles: scikit-learn, closed forms, and planted noise."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from labelops.hashing import hash_integers, is_drawn
from labelops.multilabel.beliefs import Features, Learned, learn, p_label_error
from labelops.multilabel.cells import Cells, ReadableEngine
from labelops.multilabel.labels import UNKNOWN, from_states, label_sets, states, with_changes
from labelops.multilabel.opinion import noise_limits
from labelops.multilabel.sampling import (
    AGREED,
    CONTRADICTED,
    GIVEN,
    Shares,
    draw,
    shares_of,
)
from labelops.multilabel.scaling import PRIOR_CELLS, fit_scaling, scaled

N, K = 400, 5


@pytest.mark.parametrize("seed", range(3))
def test_scaling__minimises_the_penalised_loss(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, group = rng.normal(0, 3, 500), rng.integers(0, 3, 500)
    z, w = rng.random(500) < expit(x * np.array([0.3, 1, 2])[group] - group), rng.random(500)
    scaling = fit_scaling(x, z, group, w, n_classes=4)
    w = w * (500 / w.sum())

    def loss(at: np.ndarray, rows: np.ndarray, prior: np.ndarray) -> float:
        s = at[0] * x[rows] + at[1]
        cells = w[rows] * np.logaddexp(0, np.where(z[rows], -s, s))
        return float(cells.sum() + PRIOR_CELLS * np.square(at - prior).sum())

    every = np.arange(500)
    start = np.array([1.0, 0.0])
    pooled = minimize(loss, start, args=(every, start), tol=1e-12).x
    for c in range(3):
        best = minimize(loss, pooled, args=(np.flatnonzero(group == c), pooled), tol=1e-12).x
        np.testing.assert_allclose([scaling.slope[c], scaling.shift[c]], best, atol=1e-4)
    # A class of which no cell is known is as all are.
    np.testing.assert_allclose([scaling.slope[3], scaling.shift[3]], pooled, atol=1e-4)


def test_scaling__of_nothing_changes_nothing() -> None:
    none = np.empty(0)
    scaling = fit_scaling(none, none.astype(bool), none.astype(np.int64), none, n_classes=2)
    assert scaling.slope.tolist() == [1.0, 1.0]
    assert scaling.shift.tolist() == [0.0, 0.0]


def test_scaling__all_states_alike_stays_finite() -> None:
    x = np.full(300, 16.0)
    scaling = fit_scaling(x, np.ones(300, bool), np.zeros(300, np.int64), np.ones(300), n_classes=1)
    assert np.isfinite(scaling.slope).all()
    assert scaled(x, np.zeros(300, np.int64), scaling).min() > 2


# -- limits ----------------------------------------------------------------------------------------


def test_limits__are_one_label_more_than_among_the_surest() -> None:
    score = np.arange(1000.0)[::-1]
    is_given = np.arange(1000) < 500
    is_given[:10] = False  # 10 of the surest are not given
    odds, weight = np.ones(1000), np.ones(1000)
    missing, wrong = noise_limits(score, is_given, odds, weight)
    # The first 50 cells, 490 labels' tenth being 49; nothing among the last is given.
    np.testing.assert_allclose(missing, (10 + 1) / (50 + 2))
    np.testing.assert_allclose(wrong, 1 / (50 + 1))


def test_limits__weights_stand_for_repeated_cells() -> None:
    rng = np.random.default_rng(0)
    score, is_given = rng.normal(size=600), rng.random(600) < 0.5
    times = np.where(is_given, 1, rng.integers(1, 4, 600))
    plain = noise_limits(
        np.repeat(score, times),
        np.repeat(is_given, times),
        np.ones(times.sum()),
        np.ones(times.sum()),
    )
    weighted = noise_limits(score, is_given, np.ones(600), times.astype(float))
    # The region may end within a repeated cell.
    np.testing.assert_allclose(weighted, plain, rtol=0.1)


def test_limits__without_any_label_say_nothing_is_surely_sound() -> None:
    none = np.zeros(3, bool)
    assert all(0 < x <= 1 for x in noise_limits(np.zeros(3), none, np.zeros(3), np.ones(3)))
    empty = np.empty(0)
    assert all(0 < x <= 1 for x in noise_limits(empty, empty.astype(bool), empty, empty))


# -- planted noise ---------------------------------------------------------------------------------


def planted(hidden: float, wrong: float, seed: int = 0) -> tuple[Features, np.ndarray, np.ndarray]:
    """Return features of cells that a good model knows, spoiled at known rates, and the truth."""
    rng = np.random.default_rng(seed)
    class_id = rng.integers(0, K, 8000)
    log_odds = rng.normal(-1, 4, 8000)
    true = rng.random(8000) < expit(log_odds)
    given = np.where(true, rng.random(8000) >= hidden, rng.random(8000) < wrong)
    features = Features(class_id, given, np.clip(log_odds, -16, 16), np.zeros(8000))
    n_yes = np.bincount(class_id[given], minlength=K)
    odds = n_yes / (np.bincount(class_id, minlength=K) - n_yes)
    return features, true, odds


@pytest.mark.parametrize("hidden", [0.0, 0.1, 0.4])
def test_learn__finds_the_share_that_was_hidden(hidden: float) -> None:
    features, _, odds = planted(hidden, 0.0)
    learned = learn(features, np.ones(8000), odds)
    assert abs(learned.opinion.missing - hidden) < 0.04
    assert learned.opinion.wrong < 0.02
    assert learned.opinion.missing <= learned.limits[0] + 1e-9


@pytest.mark.parametrize("hidden", [0.1, 0.4])
def test_turned__is_right_as_often_as_promised(hidden: float) -> None:
    features, true, odds = planted(hidden, 0.02)
    p = p_label_error(features, learn(features, np.ones(8000), odds))
    is_wrong = true != features.is_given
    for low in (0.5, 0.8):
        at = p >= low
        assert at.sum() > 30
        # Two and a half standard errors of a share, and what a fit of two numbers may miss.
        slack = 2.5 * (p[at] * (1 - p[at])).sum() ** 0.5 / at.sum() + 0.05
        assert abs(is_wrong[at].mean() - p[at].mean()) < slack


def test_learned__survives_being_stored() -> None:
    features, _, odds = planted(0.2, 0.02)
    learned = learn(features, np.ones(8000), odds)
    again = Learned.of(learned.arrays())
    assert np.array_equal(p_label_error(features, again), p_label_error(features, learned))


def test_learn__from_nothing_believes_what_is_given() -> None:
    empty = np.empty(0)
    features = Features(empty.astype(np.int64), empty.astype(bool), empty, empty)
    learned = learn(features, empty, np.zeros(K))
    cell = Features(np.array([0, 1]), np.array([False, True]), np.array([3.0, -3.0]), np.zeros(2))
    assert (p_label_error(cell, learned) < 0.01).all()


# -- sampling --------------------------------------------------------------------------------------


def block(seed: int = 0, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = (rng.random((N, K)) < 0.3).astype(np.int8)
    table[rng.random((N, K)) < unknown] = UNKNOWN
    return rng.random((N, K)).astype(np.float32), table, hash_integers(np.arange(N))


@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_all_shares_one__every_known_cell_once(unknown: float) -> None:
    probs, table, hashes = block(unknown=unknown)
    labels = from_states(table)
    apart = ReadableEngine().disagreeing(probs, labels)
    cells, kind = draw(probs, labels, hashes, apart, Shares(1.0, 1.0, 1.0))
    seen = np.full((N, K), -1)
    for row, class_id, k in zip(cells.row, cells.class_id, kind, strict=True):
        assert seen[row, class_id] == -1
        seen[row, class_id] = k
    expected = np.where(table == 1, GIVEN, np.where(probs > 0.5, CONTRADICTED, AGREED))
    np.testing.assert_array_equal(seen, np.where(table == UNKNOWN, -1, expected))
    assert np.array_equal(cells.p, probs[cells.row, cells.class_id])
    assert np.array_equal(cells.is_given, table[cells.row, cells.class_id] == 1)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_shares__are_met_and_do_not_depend_on_the_block(share: float) -> None:
    probs, table, hashes = block()
    labels, shares = from_states(table), Shares(share, share, share)
    apart = ReadableEngine().disagreeing(probs, labels)
    cells, kind = draw(probs, labels, hashes, apart, shares)
    known = [(table == 1).sum(), len(apart.choose(~apart.is_given).row), 0]
    known[2] = N * K - known[0] - known[1]
    for k, n in enumerate(known):
        # Four standard errors of a drawn number.
        assert abs((kind == k).sum() - share * n) < 4 * (share * n) ** 0.5 + 1
    whole = set(zip(cells.row.tolist(), cells.class_id.tolist(), strict=True))
    parts: set[tuple[int, int]] = set()
    for rows in (slice(0, 150), slice(150, N)):
        mine = from_states(table[rows])
        part, _ = draw(
            probs[rows], mine, hashes[rows], ReadableEngine().disagreeing(probs[rows], mine), shares
        )
        first = rows.start
        parts |= set(zip((part.row + first).tolist(), part.class_id.tolist(), strict=True))
    assert parts == whole


def test_is_drawn__takes_all_or_none_at_the_ends() -> None:
    hashes = hash_integers(np.arange(1000))
    assert is_drawn(hashes, share=1.0).all()
    assert not is_drawn(hashes, share=0.0).any()


def test_shares_of__few_cells_are_all_drawn() -> None:
    assert shares_of(0, 0, 0, wanted=10) == Shares(1.0, 1.0, 1.0)
    assert shares_of(1000, 10, 100, wanted=100) == Shares(0.1, 1.0, 1.0)


def test_draw__of_no_items_and_without_labels() -> None:
    none = label_sets([], n_classes=K)
    empty = np.empty((0, K), np.float32)
    nothing = Cells(*(np.empty(0, t) for t in (np.int64, np.int64, bool, np.float32)))
    cells, kind = draw(empty, none, np.empty(0, np.uint64), nothing, Shares(0.5, 0.5, 0.5))
    assert len(cells.row) == len(kind) == 0


# -- changed sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unknown", [0.0, 0.4])
def test_with_changes__equals_changing_the_table(unknown: float) -> None:
    _, table, _ = block(1, unknown)
    rng = np.random.default_rng(2)
    row, class_id = np.nonzero(rng.random((N, K)) < 0.2)
    present = rng.random(len(row)) < 0.5
    changed = states(with_changes(from_states(table), row, class_id, present))
    table[row, class_id] = present
    assert np.array_equal(changed, table)


def test_with_changes__none_is_the_same() -> None:
    labels = label_sets([[0, 2], []], n_classes=3)
    none = np.empty(0, np.int64)
    changed = with_changes(labels, none, none, none.astype(bool))
    assert np.array_equal(states(changed), states(labels))
    assert changed.ids.dtype == labels.ids.dtype
