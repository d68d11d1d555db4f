"""Oracle: every cell worked out, one by one."""

import numpy as np
import pytest
from scipy.special import expit

from labelops.multilabel.beliefs import Features, Learned, learn, p_label_error
from labelops.multilabel.candidates import Search, candidates
from labelops.multilabel.cells import Cells
from labelops.multilabel.cooccurrence import Pairs, evidence, summarize
from labelops.multilabel.labels import UNKNOWN, from_states, take_rows
from labelops.multilabel.opinion import Opinion, believe, log_odds_at, model_log_odds

FLOORS = [0.001, 0.05, 0.5, 0.95, 1.0]

Made = tuple[np.ndarray, np.ndarray]


def made(seed: int, *, reverse: bool = False, unknown: bool = False, n: int = 300) -> Made:
    """Return probabilities, some exact, and states of classes that come together."""
    rng = np.random.default_rng([seed, 41])
    n_classes = int(rng.integers(1, 9))
    cause, effect = rng.random((n, 3)) < 0.4, rng.normal(0, 2, (3, n_classes))
    table = (rng.random((n, n_classes)) < expit(cause @ effect - 1)).astype(np.int8)
    probs = expit(rng.normal(0, 1.5, table.shape) + 2 * table - 1).astype(np.float32)
    probs[:20] = np.round(probs[:20])
    if unknown:
        table[rng.random(table.shape) < 0.3] = UNKNOWN
    return (1 - probs if reverse else probs), table


def learned_of(probs: np.ndarray, table: np.ndarray) -> tuple[Cells, np.ndarray, Learned, Pairs]:
    """Return all cells with a known state, how probable their errors are, and what says so."""
    labels = from_states(table)
    pairs = summarize(labels)
    row, class_id = np.nonzero(table != UNKNOWN)
    cells = Cells(row, class_id, table[row, class_id] == 1, probs[row, class_id])
    _, heard = evidence(cells, labels, pairs)
    features = Features(class_id, cells.is_given, model_log_odds(cells.p), heard)
    learned = learn(features, np.ones(len(row)), pairs.n_yes / np.maximum(pairs.n_no, 1))
    return cells, p_label_error(features, learned), learned, pairs


def check(probs: np.ndarray, table: np.ndarray) -> None:
    cells, p, learned, pairs = learned_of(probs, table)
    for floor in FLOORS:
        search = Search.of(learned, pairs, floor=floor)
        found, mine = candidates(probs, from_states(table), search)
        expected = cells.choose(p >= floor)
        for ours, theirs in zip((*found, mine), (*expected, p[p >= floor]), strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_candidates__are_all_that_reach_the_floor(seed: int, unknown: bool, reverse: bool) -> None:
    """Even of a model that says the opposite of what is given, whose slopes are negative."""
    check(*made(seed, reverse=reverse, unknown=unknown))


@pytest.mark.parametrize("value", [0, 1, UNKNOWN])
def test_candidates__of_a_class_with_one_state(value: int) -> None:
    probs, table = made(3)
    table[:, 0] = value
    check(probs, table)


@pytest.mark.parametrize("n", [0, 1])
def test_candidates__of_no_item_and_of_one(n: int) -> None:
    _, _, learned, pairs = learned_of(*made(1))
    probs, table = made(1)
    found, p = candidates(probs[:n], from_states(table[:n]), Search.of(learned, pairs, floor=0.001))
    assert len(found.row) == len(p)
    assert n or not len(p)


def test_candidates__do_not_depend_on_blocks() -> None:
    probs, table = made(2)
    _, _, learned, pairs = learned_of(probs, table)
    search, labels = Search.of(learned, pairs, floor=0.01), from_states(table)
    whole, p = candidates(probs, labels, search)
    parts = [
        candidates(probs[part], take_rows(labels, part), search)
        for part in (slice(0, 7), slice(7, 150), slice(150, 300))
    ]
    assert np.array_equal(np.concatenate([mine for _, mine in parts]), p)
    assert sum(len(found.row) for found, _ in parts) == len(whole.row)


def hidden(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return probabilities of a model that is sure of nothing, given lists, and what they lack."""
    rng = np.random.default_rng([seed, 5])
    true = (rng.random((4000, 8)) < 0.1).astype(np.int8)
    given = true * (rng.random(true.shape) > 0.3)
    probs = expit(rng.normal(-3.5, 0.7, true.shape) + 2.0 * true)
    return probs, given, (true > given)


def test_candidates__find_what_an_unsure_model_ranks_well() -> None:
    """Nearly nothing is contradicted, so nearly nothing is flagged; planted truth ranks high."""
    from sklearn.metrics import average_precision_score

    probs, given, lacks = hidden(0)
    _, _, learned, pairs = learned_of(probs, given)
    found, p = candidates(probs, from_states(given), Search.of(learned, pairs, floor=0.01))
    listed = np.zeros(probs.shape)
    listed[found.row, found.class_id] = np.where(found.is_given, 0, p)
    contradicted = np.where((probs > 0.5) & (given == 0), probs, 0)
    unknown = given == 0
    ours, flags, best = (
        average_precision_score(lacks[unknown], score[unknown])
        for score in (listed, contradicted, probs)
    )
    assert ours > 3 * flags
    assert ours > 0.95 * best


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
def test_log_odds_at__is_the_inverse_of_the_belief(p: float) -> None:
    opinion = Opinion(0.3, np.array([1.2]), 0.25, 0.1)
    odds = np.array([0.01, 0.3, 2.0])
    least = log_odds_at(odds, opinion, p=p)
    values = (least - opinion.bias)[:, None] / opinion.weight
    believed = believe(values, np.zeros(3, bool), odds, opinion)
    np.testing.assert_allclose(believed, p, rtol=1e-12)
