"""Missing positives of a table: finite differences, a loop over cells, planted positives."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from labelops.partial.matrix import (
    Training,
    fit_matrix,
    gradients,
    missing_scores,
    p_missing,
)
from tests.oracles.matrix import slopes, train

SMALL = Training(rank=3, n_epochs=4, n_unvoted=2, batch=7, penalty=400.0, flip_penalty=900.0)


def fitted(table, training=SMALL, seed=0):
    return fit_matrix(
        *np.nonzero(table),
        n_rows=table.shape[0],
        n_columns=table.shape[1],
        training=training,
        seed=seed,
    )


def random_table(seed=0, shape=(9, 6), share=0.4):
    return np.random.default_rng(seed).random(shape) < share


def test_gradients__are_those_of_the_papers_program():
    logit, flip = np.full(2, np.log(0.7 / 0.3)), np.full(2, -1.3)
    by_logit, by_flip = gradients(np.full(2, 0.7), flip, np.array([True, False]))
    assert by_logit == pytest.approx([0.260750, -0.597125], abs=1e-6)
    assert by_flip == pytest.approx([-0.143102, 0.525085], abs=1e-6)
    g = expit(-1.3)
    assert p_missing(logit, flip) == pytest.approx(g * 0.7 / (0.3 + g * 0.7))


@pytest.mark.parametrize("is_positive", [True, False])
def test_gradients__are_the_slopes_of_the_objective(is_positive):
    r, f = (part.ravel() for part in np.meshgrid([-4, -0.5, 0, 0.7, 3], [-6, -1.3, 0, 2]))
    found = np.stack(gradients(r, f, np.full(len(r), is_positive)), axis=1)
    want = [slopes(*cell, is_positive) for cell in zip(r, f, strict=True)]
    np.testing.assert_allclose(found, want, atol=1e-9)


def test_gradients__without_flips_are_those_of_a_logistic_regression():
    r = np.array([-800.0, -3.0, 0.0, 3.0, 800.0])
    none = np.full(5, -np.inf)
    for is_positive in (True, False):
        by_logit, by_flip = gradients(r, none, np.full(5, is_positive))
        assert np.array_equal(by_logit, expit(-r) if is_positive else -expit(r))
        assert np.array_equal(by_flip, np.zeros(5) if is_positive else expit(r))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_single_cell__settles_where_the_flips_are_the_share_of_no(share):
    """So g is no noise rate: it says 1 − a whatever the truth, and (1 − g) s is not a."""
    r, f = np.zeros(1), np.zeros(1)
    for _ in range(4000):
        yes, no = (gradients(r, f, np.array([state])) for state in (True, False))
        r, f = (
            at + 0.5 * (share * by_yes + (1 - share) * by_no)
            for at, by_yes, by_no in zip((r, f), yes, no, strict=True)
        )
    g, a = 1 - share, share
    s = (a * (1 - g) + (1 - a) * g) / (a * (1 - g) + (1 - a) * (1 + g))
    assert expit(f[0]) == pytest.approx(g, abs=1e-6)
    assert expit(r[0]) == pytest.approx(s, abs=1e-6)
    assert abs((1 - g) * s - a) > 0.01
    p = p_missing(r, f)[0]
    assert p / (1 - p) == pytest.approx(a * a + (1 - a) ** 2, abs=1e-5)


@pytest.mark.parametrize("flips", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_fit__is_that_of_loops_over_cells(flips, seed):
    table, training = random_table(seed), SMALL._replace(flips=flips)
    table[2], table[4] = True, False
    u, v, p, q = train(table, training, seed)
    found = fitted(table, training, seed)
    np.testing.assert_allclose(found.preference.rows, u, rtol=1e-9)
    np.testing.assert_allclose(found.preference.columns, v, rtol=1e-9)
    if flips:
        np.testing.assert_allclose(found.flip.rows, p, rtol=1e-9)
        np.testing.assert_allclose(found.flip.columns, q, rtol=1e-9)
    else:
        assert found.flip is None


def planted(seed, hiding, shape=(300, 200)):
    """Return a table of rank 2 with 30 % of its positives hidden, and which those are."""
    rng = np.random.default_rng(seed)
    rows, columns = (rng.normal(size=(n, 2)) for n in shape)
    logits = rows @ columns.T
    true = logits > np.quantile(logits, 0.9)
    n_of = np.maximum(true.sum(axis=0), 1.0)
    odds = {"random": n_of * 0 + 1, "of the popular": n_of, "of the rare": 1 / n_of}[hiding]
    row, column = np.nonzero(true)
    p = odds[column] / odds[column].sum()
    chosen = rng.choice(len(row), round(0.3 * len(row)), replace=False, p=p)
    hidden = np.zeros(shape, bool)
    hidden[row[chosen], column[chosen]] = True
    return true & ~hidden, hidden


def found_by(given, hidden, seed, **settings):
    """Return the area under the ROC curve of the score and of s over cells that are not given."""
    row, column = np.nonzero(~given)
    found = fitted(given, Training(rank=2, n_epochs=30, **settings), seed)
    score, s = missing_scores(found, row, column), found.preference.logits(row, column)
    return (roc_auc_score(hidden[row, column], one) for one in (score, s))


# Where positives of rare columns are hidden, flips gain nothing that can be relied on.
@pytest.mark.parametrize(
    ("hiding", "gain"), [("random", 0.01), ("of the popular", 0.01), ("of the rare", -0.05)]
)
def test_planted_positives__are_found_better_than_by_popularity_and_without_flips(hiding, gain):
    gains = []
    for seed in range(10, 14):
        given, hidden = planted(seed, hiding)
        score, _ = found_by(given, hidden, seed)
        plain, _ = found_by(given, hidden, seed, flips=False)
        _, column = np.nonzero(~given)
        popular = roc_auc_score(hidden[~given], given.sum(axis=0)[column])
        assert plain > popular + 0.05
        gains.append([score - popular, score - plain])
    assert (np.mean(gains, axis=0) > [0.1, gain]).all()


def test_flips__that_are_held_as_little_as_in_the_paper_spoil_the_order_of_a_small_table():
    given, hidden = planted(10, "random")
    score, s = found_by(given, hidden, 10, flip_penalty=5.0)
    assert score < s - 0.1


def test_order_of_cells__changes_no_bit_and_no_input():
    table = random_table()
    row, column = np.nonzero(table)
    order = np.random.default_rng(1).permutation(len(row))
    shuffled = row[order], column[order]
    kept = [part.copy() for part in shuffled]
    sizes = {"n_rows": 9, "n_columns": 6, "training": SMALL}
    found = [fit_matrix(*cells, **sizes) for cells in ((row, column), shuffled)]
    for a, b in zip(*(f.preference + f.flip for f in found), strict=True):
        assert np.array_equal(a, b)
    assert all(np.array_equal(a, b) for a, b in zip(kept, shuffled, strict=True))
    other = fit_matrix(row, column, **sizes, seed=1)
    assert not np.array_equal(found[0].preference.rows, other.preference.rows)


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((4, 3), bool),
        np.ones((4, 3), bool),
        np.zeros((0, 3), bool),
        np.zeros((3, 0), bool),
        np.eye(1, 2, dtype=bool),
        np.eye(2, 1, dtype=bool),
        np.array([[True, False, False], [True, True, True], [False, False, False]]),
    ],
)
def test_corners__give_numbers_in_0_to_1(table):
    row, column = np.indices(table.shape)
    for flips in (True, False):
        found = fitted(table, SMALL._replace(flips=flips, batch=None))
        score = missing_scores(found, row.ravel(), column.ravel())
        assert score.shape == (table.size,)
        assert ((score >= 0) & (score <= 1)).all()


def test_logits__without_bound_give_exact_ends():
    ends = np.array([-np.inf, -1e4, 1e4, np.inf])
    assert p_missing(ends, np.zeros(4)).tolist() == [0, 0, 1, 1]
    assert p_missing(np.zeros(4), ends) == pytest.approx([0, 0, 0.5, 0.5])


@pytest.mark.parametrize(
    ("row", "column", "says"),
    [
        ([0, 3], [0, 0], "rows must be from 0 to 2, got 3"),
        ([0, 0], [0, -1], "columns must be from 0 to 1, got -1"),
        ([0, 1, 1], [0, 1, 1], "row 1 has column 1 twice"),
    ],
)
def test_cells__that_do_not_fit_are_refused(row, column, says):
    with pytest.raises(ValueError, match=says):
        fit_matrix(np.array(row), np.array(column), n_rows=3, n_columns=2)


def test_steps__that_run_away_are_refused():
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="run away"):
        fitted(random_table(), SMALL._replace(rate=1e6, n_epochs=60))
