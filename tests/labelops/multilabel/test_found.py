"""Oracle: truths drawn from known probabilities, which scores hide behind another scale."""

import numpy as np
import pytest
from scipy.special import expit, logit

from labelops.multilabel.cutoffs import choose_cutoffs, sets_from
from labelops.multilabel.found import fit_probability, found_by_others, held_out, probability
from labelops.multilabel.labels import from_states

N, K = 4000, 4


def planted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true probabilities, scores that are too sure and shifted by class, and truths."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(-1, 2, (N, K))
    p = expit(log_odds)
    scores = expit(2.5 * log_odds + np.array([2.0, 0.0, -1.0, 3.0]))
    return p, scores, (rng.random((N, K)) < p).astype(np.int8)


def test_probability__is_that_from_which_truths_were_drawn() -> None:
    p, scores, table = planted(0)
    scaling = fit_probability(scores, table, np.ones((N, K), bool))
    item, class_id = np.nonzero(np.ones((N, K), bool))
    got = probability(scores[item, class_id], class_id, scaling).reshape(N, K)
    # Scores beyond ±16 are one; nothing there is worth more than that.
    inside = np.abs(logit(scores)) < 16
    assert np.abs(got - p)[inside].max() < 0.05
    assert np.abs(scores - p)[inside].max() > 0.4


def test_fit__cells_that_do_not_count_and_unknown_ones_say_nothing() -> None:
    _, scores, table = planted(1)
    counted = np.random.default_rng(2).random((N, K)) < 0.5
    other = np.where(counted, table, 1 - table)
    a, b = (fit_probability(scores, t, counted) for t in (table, other))
    np.testing.assert_array_equal(a.slope, b.slope)
    unknown = np.where(counted, table, -1)
    c = fit_probability(scores, unknown, np.ones((N, K), bool))
    np.testing.assert_array_equal(a.shift, c.shift)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out__says_what_the_bands_are_worth(seed: int) -> None:
    """In each band as many are right as were promised, within four standard deviations."""
    _, scores, table = planted(seed)
    edges, fold = np.array([0.5, 0.7, 0.9]), np.arange(N) % 5
    held = held_out(scores, table, found_by_others(scores, table, fold), fold, edges=edges)
    n = held.right + held.wrong
    assert (n > 200).all()
    promised = held.promised / n
    std = np.sqrt(promised * (1 - promised) / n)
    assert (np.abs(held.right / n - promised) < 4 * std + 0.01).all()
    assert ((promised >= edges) & (promised <= np.append(edges[1:], 1))).all()


def test_found_by_others__is_free_of_what_a_cutoff_makes_of_its_own_cells() -> None:
    """Where scores say nothing, as many of the found cells are there as of all; in sight more."""
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores, table = rng.random((60, 10)), (rng.random((60, 10)) < 0.2).astype(np.int8)
        cutoffs = choose_cutoffs(scores, from_states(table), pseudo_positives=1)
        by_others = found_by_others(scores, table, np.arange(60) % 5)
        own = sets_from(scores, cutoffs)
        shares.append([table[cells].mean() - table.mean() for cells in (own, by_others)])
    own_gain, others_gain = np.mean(shares, axis=0)
    assert own_gain > 0.03
    assert abs(others_gain) < 0.01


def test_held_out__one_fold_or_no_known_absence_is_no_evidence() -> None:
    _, scores, table = planted(4)
    for t, fold in ((table, np.zeros(N, int)), (np.ones_like(table), np.arange(N) % 5)):
        assert not found_by_others(scores, t, fold).any()
    nothing = np.zeros((N, K), bool)
    held = held_out(scores, table, nothing, np.arange(N) % 5, edges=np.array([0.5]))
    assert (held.right.tolist(), held.wrong.tolist(), held.promised.tolist()) == ([0], [0], [0])
