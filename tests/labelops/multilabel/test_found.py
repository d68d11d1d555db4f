"""Oracle: truths drawn from known probabilities, which scores hide behind another scale."""

import numpy as np
import pytest
from scipy.special import expit, logit

from labelops.multilabel.found import fit_probability, held_out, probability

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
    edges = np.array([0.5, 0.7, 0.9])
    found = held_out(scores, table, np.ones((N, K), bool), np.arange(N) % 5, edges=edges)
    n = found.right + found.wrong
    assert (n > 200).all()
    promised = found.promised / n
    spread = np.sqrt(promised * (1 - promised) / n)
    assert (np.abs(found.right / n - promised) < 4 * spread + 0.01).all()
    assert ((promised >= edges) & (promised <= np.append(edges[1:], 1))).all()


def test_held_out__of_scores_that_say_nothing_promises_nothing() -> None:
    """Judged on the cells themselves, a cutoff looks better than it is; held out it does not."""
    rng = np.random.default_rng(3)
    scores, table = rng.random((300, 20)), (rng.random((300, 20)) < 0.3).astype(np.int8)
    found = held_out(
        scores, table, np.ones_like(table, bool), np.arange(300) % 5, edges=np.array([0.5])
    )
    assert (found.right + found.wrong).sum() < 30


def test_held_out__one_fold_or_no_known_absence_is_no_evidence() -> None:
    _, scores, table = planted(4)
    everything, edges = np.ones((N, K), bool), np.array([0.5])
    for t, fold in ((table, np.zeros(N, int)), (np.ones_like(table), np.arange(N) % 5)):
        found = held_out(scores, t, everything, fold, edges=edges)
        assert not (found.right + found.wrong).any()
