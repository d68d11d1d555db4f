"""Oracle: cleanlab's flags on every row and class; `labelops.confident` class by class."""

import itertools
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.confident import issues as single
from labelops.confident import selection as sel
from labelops.confident.filters import Filter, Settings
from labelops.fast.multilabel import CompiledEngine
from labelops.multilabel import issues
from labelops.multilabel import rules as rules_module
from labelops.multilabel.cells import ReadableEngine
from labelops.multilabel.issues import blocks_of
from labelops.multilabel.labels import from_states, label_sets, take_rows
from labelops.multilabel.rules import Block, apply, fit
from tests.labelops.multilabel.data import (
    cleanlab_flags,
    dense,
    is_untied,
    lists,
    make,
    problems,
    real_problem,
)

FILTERS = get_args(Filter)
PRUNING = ("prune_by_noise_rate", "prune_by_class", "both")
ENGINES = {"readable": ReadableEngine(), "compiled": CompiledEngine()}
every_filter = pytest.mark.parametrize("filter_by", FILTERS)
both_engines = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


def flags_of(probs, table, engine=ENGINES["compiled"], **settings):
    cells, noise = issues.find_label_issues(probs, from_states(table), engine=engine, **settings)
    return dense(cells, table.shape), noise


@every_filter
@both_engines
@settings(max_examples=12)
@examples(problem=problems())
def test_flags__equal_those_of_cleanlab_on_every_row_and_class(engine, filter_by, problem):
    probs, table = problem
    flags, estimates = flags_of(probs, table, engine, filter_by=filter_by)
    assume(is_untied(probs, table, estimates.thresholds))
    assert np.array_equal(flags, cleanlab_flags(probs, table, filter_by))


@pytest.mark.parametrize("filter_by", PRUNING)
@settings(max_examples=25)
@examples(
    problem=problems(),
    frac_noise=st.sampled_from([0.0, 0.25, 0.9]),
    min_examples_per_class=st.sampled_from([0, 3, 40, 1000]),
)
def test_flags__equal_those_of_cleanlab_for_every_setting(
    filter_by, problem, frac_noise, min_examples_per_class
):
    probs, table = problem
    wanted = {"frac_noise": frac_noise, "min_examples_per_class": min_examples_per_class}
    flags, estimates = flags_of(probs, table, filter_by=filter_by, **wanted)
    assume(is_untied(probs, table, estimates.thresholds))
    assert np.array_equal(flags, cleanlab_flags(probs, table, filter_by, **wanted))


@pytest.mark.parametrize("filter_by", [f for f in FILTERS if not f.startswith("low_")])
@pytest.mark.parametrize("name", ["emotions", "scene", "yeast"])
def test_flags__equal_those_of_cleanlab_on_real_sets(shared_data, name, filter_by):
    from cleanlab.multilabel_classification.filter import find_label_issues

    path = shared_data / "multilabel" / f"{name}.csv.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    probs, table, truth = real_problem(path)
    flags, _ = flags_of(probs, table, filter_by=filter_by)
    assert np.array_equal(flags, cleanlab_flags(probs, table, filter_by))
    rows = find_label_issues(lists(table), probs, filter_by=filter_by, n_jobs=1)
    assert np.array_equal(flags.any(axis=1), rows)
    # And they mean something: a tenth of the cells is wrong, of the flagged ones many more.
    assert (table != truth)[flags].mean() > 0.2


@every_filter
@both_engines
@settings(max_examples=15)
@examples(problem=problems(unknown=(0.3, 0.9)))
def test_flags__unknown_cells_take_no_part(engine, filter_by, problem):
    """Each class alone, with the items of which it is known."""
    probs, table = problem
    flags, estimates = flags_of(probs, table, engine, filter_by=filter_by)
    assert not flags[table < 0].any()
    assume(is_untied(probs, table, estimates.thresholds))
    for c in range(table.shape[1]):
        known = table[:, c] >= 0
        pair = np.stack([1 - probs[known, c], probs[known, c]], axis=1)
        state = table[known, c].astype(np.int64)
        alone = single.find_label_issues(pair, state, filter_by=filter_by)
        assert np.array_equal(flags[known, c], alone)
        thresholds, _ = single.estimate_noise(pair, state)
        np.testing.assert_array_equal(estimates.thresholds[c], thresholds)


@settings(max_examples=25)
@examples(problem=problems(unknown=(0.0, 0.4)))
def test_engines__give_the_same_bits(problem):
    probs, table = problem
    labels = from_states(table)
    one, two = ENGINES.values()
    for a, b in zip(one.sums(probs, labels), two.sums(probs, labels), strict=True):
        assert np.array_equal(a, b)
    bounds = np.random.default_rng(0).random((table.shape[1], 2)).astype(probs.dtype)
    for a, b in zip(
        one.counts(probs, labels, bounds), two.counts(probs, labels, bounds), strict=True
    ):
        assert np.array_equal(a, b)
    for a, b in zip(one.disagreeing(probs, labels), two.disagreeing(probs, labels), strict=True):
        assert np.array_equal(a, b)


@both_engines
@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_engines__agree_on_ties_zero_and_one(engine, unknown):
    rng = np.random.default_rng(0)
    values = np.array([0.0, 1.0, 0.5, 0.4999995, 0.5000005, 0.4999999, 0.5000001], np.float32)
    probs = rng.choice(values, (60, 4))
    table = rng.choice([0, 1, -1], (60, 4), p=[0.6 - unknown / 2, 0.4 - unknown / 2, unknown])
    cells = engine.disagreeing(probs, from_states(table.astype(np.int8)))
    for state in (0, 1):
        pair = np.stack([1 - probs, probs], axis=2)
        pair[..., state] += np.float32(1e-6)
        apart = (pair.argmax(axis=2) != state) & (table == state)
        chosen = cells.choose(cells.is_given == bool(state))
        assert np.array_equal(dense(chosen, table.shape), apart)


@every_filter
@pytest.mark.parametrize("cuts", [[], [7], [0, 50, 50, 199]])
@pytest.mark.parametrize("collect", [0, 10_000])
def test_rules__do_not_depend_on_shards_and_on_when_counting_ends(
    filter_by, cuts, collect, monkeypatch
):
    probs, table, _ = make(3, unknown=0.1)
    probs[::3] = np.round(probs[::3] * 4) / 4
    labels, hashes = from_states(table), np.random.default_rng(0).permutation(200).astype(np.uint64)
    rules = Settings(filter_by)
    whole = Block(probs, labels, hashes)
    want = fit(lambda: [whole], n_classes=5, settings=rules, engine=ENGINES["compiled"])
    monkeypatch.setattr(rules_module, "COLLECT", collect)
    monkeypatch.setattr(sel, "CELLS", 64)
    ends = [0, *cuts, 200]
    slices = [slice(a, b) for a, b in itertools.pairwise(ends)]
    shards = [Block(probs[s], take_rows(labels, s), hashes[s]) for s in slices][::-1]
    got = fit(lambda: shards, n_classes=5, settings=rules)
    for a, b in zip(want.estimates, got.estimates, strict=True):
        np.testing.assert_array_equal(a, b)
    flags = dense(apply(want, whole), table.shape)
    parts = [dense(apply(got, b), (len(b.probs), 5)) for b in shards[::-1]]
    assert np.array_equal(np.concatenate(parts), flags)
    assert flags.any()


@every_filter
def test_flags__move_with_the_items_and_with_the_classes(filter_by):
    probs, table, _ = make(4)
    probs[::5] = np.round(probs[::5] * 4) / 4
    hashes = np.random.default_rng(1).permutation(200).astype(np.uint64)
    order, classes = np.random.default_rng(0).permutation(200), np.array([3, 0, 4, 1, 2])
    flags, _ = flags_of(probs, table, filter_by=filter_by, item_hash=hashes)
    moved, _ = flags_of(
        probs[order][:, classes],
        table[order][:, classes],
        filter_by=filter_by,
        item_hash=hashes[order],
    )
    assert np.array_equal(moved, flags[order][:, classes])


@every_filter
@both_engines
def test_flags__a_class_that_nobody_has_changes_nothing(filter_by, engine):
    probs, table, _ = make(5)
    wider = np.concatenate([probs, np.full((200, 1), 0.01)], axis=1)
    absent = np.concatenate([table, np.zeros((200, 1), np.int8)], axis=1)
    flags, _ = flags_of(probs, table, engine, filter_by=filter_by)
    more, estimates = flags_of(wider, absent, engine, filter_by=filter_by)
    assert np.array_equal(more[:, :5], flags)
    assert not more[:, 5].any()
    assert estimates.thresholds[5, 1] == 2.0


@pytest.mark.parametrize("filter_by", ["confident_learning", "predicted_neq_given"])
def test_flags__every_item_twice_is_flagged_twice(filter_by):
    probs, table, _ = make(6)
    flags, _ = flags_of(probs, table, filter_by=filter_by)
    twice, _ = flags_of(np.tile(probs, (2, 1)), np.tile(table, (2, 1)), filter_by=filter_by)
    assert np.array_equal(twice, np.tile(flags, (2, 1)))


@every_filter
@both_engines
def test_flags__of_a_class_that_everybody_has(filter_by, engine):
    probs = np.array([[0.9], [0.2], [0.8]])
    flags, estimates = flags_of(probs, np.ones((3, 1), np.int8), engine, filter_by=filter_by)
    # Nobody is known to be without it, so nobody can be taken for that with confidence.
    assert flags.ravel().tolist() == [False, filter_by == "predicted_neq_given", False]
    assert estimates.n_wrong.tolist() == [0]


@every_filter
@both_engines
@pytest.mark.parametrize("n", [0, 1])
def test_flags__of_nothing_of_one_item_and_of_nothing_known(filter_by, engine, n):
    probs = np.full((n, 2), 0.25)
    flags, _ = flags_of(probs, np.zeros((n, 2), np.int8), engine, filter_by=filter_by)
    assert not flags.any()
    flags, estimates = flags_of(probs, np.full((n, 2), -1, np.int8), engine, filter_by=filter_by)
    assert not flags.any()
    assert estimates.n_given.tolist() == [[0, 0], [0, 0]]


@every_filter
def test_flags__clean_labels_of_a_sure_model_have_no_issues(filter_by):
    table = np.random.default_rng(0).integers(0, 2, (50, 4)).astype(np.int8)
    assert not flags_of(table.astype(np.float64), table, filter_by=filter_by)[0].any()


def test_rates__planted_missing_and_wrong_labels_are_counted_apart():
    rng = np.random.default_rng(0)
    truth = rng.random((20_000, 2)) < [0.5, 0.3]
    hidden = truth & (rng.random(truth.shape) < [0.2, 0.0])
    added = ~truth & (rng.random(truth.shape) < [0.0, 0.1])
    # Equal confidences reach their mean, the threshold; so every item is counted.
    probs = np.where(truth, 0.9, 0.1)
    table = (truth & ~hidden | added).astype(np.int8)
    flags, estimates = flags_of(probs, table)
    # One right label is granted to either state of every class.
    np.testing.assert_allclose(estimates.n_missing, hidden.sum(axis=0), atol=1)
    np.testing.assert_allclose(estimates.n_wrong, added.sum(axis=0), atol=1)
    assert np.array_equal(flags, hidden | added)


def test_blocks__cover_every_item_once(monkeypatch):
    monkeypatch.setattr(issues, "BLOCK_CELLS", 10)
    probs, table, _ = make(7, n=13, n_classes=3)
    whole = Block(probs, from_states(table), np.arange(13, dtype=np.uint64))
    parts = list(blocks_of(whole))
    assert [len(b.probs) for b in parts] == [3, 3, 3, 3, 1]
    assert np.array_equal(np.concatenate([b.probs for b in parts]), probs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": np.full((2, 2), np.nan)}, r"lie in \[0, 1\]; row 0 of the block"),
        ({"probs": np.array([[0.5, 0.5], [3.0, -1.0]])}, "row 1 .* Were logits passed"),
        ({"probs": np.full((2, 3), 0.5)}, r"of shape \(n, 2\), got float64 \(2, 3\)"),
        ({"probs": np.full((3, 2), 0.5)}, "of 3 items and 2 classes, as probs are; got 2 and 2"),
        ({"item_hash": np.zeros(2)}, "must be 2 uint64, one an item, got float64"),
        ({"filter_by": "all"}, "filter_by must be one of .* got 'all'"),
        ({"frac_noise": 1.5}, r"frac_noise must lie in \[0, 1\], got 1.5"),
    ],
)
def test_inputs__that_do_not_fit_are_refused(change, message):
    fitting = {"probs": np.full((2, 2), 0.5), "labels": label_sets([[0], []], n_classes=2)}
    with pytest.raises(ValueError, match=message):
        issues.find_label_issues(**fitting | change)
