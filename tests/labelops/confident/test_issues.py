"""Oracle: the flags of cleanlab on every row; properties that need no other program."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, settings
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.confident import selection as sel
from labelops.confident.filters import Filter
from labelops.confident.issues import estimate_noise, find_label_issues
from labelops.fast import confident as fast
from tests.labelops.confident.data import cleanlab_flags, digits, is_untied, make, problems

FILTERS = get_args(Filter)
PRUNING = ("prune_by_noise_rate", "prune_by_class", "both")
every_filter = pytest.mark.parametrize("filter_by", FILTERS)
both_engines = pytest.mark.parametrize("find", [find_label_issues, fast.find_label_issues])


@every_filter
@both_engines
@settings(max_examples=40)
@examples(problem=problems())
def test_flags__equal_those_of_cleanlab_on_every_row(find, filter_by, problem):
    probs, given = problem
    thresholds, _ = estimate_noise(probs, given)
    assume(is_untied(probs, given, thresholds))
    flags = find(probs, given, filter_by=filter_by)
    assert np.array_equal(flags, cleanlab_flags(probs, given, filter_by))


@pytest.mark.parametrize("filter_by", PRUNING)
@settings(max_examples=40)
@examples(
    problem=problems(),
    frac_noise=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]),
    min_examples_per_class=st.sampled_from([0, 1, 3, 10, 40, 1000]),
)
def test_flags__equal_those_of_cleanlab_for_every_setting(
    filter_by, problem, frac_noise, min_examples_per_class
):
    probs, given = problem
    thresholds, _ = estimate_noise(probs, given)
    assume(is_untied(probs, given, thresholds))
    settings = {"frac_noise": frac_noise, "min_examples_per_class": min_examples_per_class}
    flags = find_label_issues(probs, given, filter_by=filter_by, **settings)
    assert np.array_equal(flags, cleanlab_flags(probs, given, filter_by, **settings))


@every_filter
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flags__equal_those_of_cleanlab_on_digits(filter_by, dtype):
    probs, given, true = digits()
    probs = probs.astype(dtype)
    flags = find_label_issues(probs, given, filter_by=filter_by)
    assert np.array_equal(flags, cleanlab_flags(probs, given, filter_by))
    # And they mean something: of the flagged ones most are truly wrong.
    assert (given != true)[flags].mean() > 4 * (given != true).mean()


@every_filter
@pytest.mark.parametrize("labels", ["aggre_label", "worse_label", "random_label1"])
@pytest.mark.parametrize("model", ["worst_resnet18", "worst_swin", "aggre_resnet18", "aggre_swin"])
def test_flags__equal_those_of_cleanlab_on_human_labels(shared_data, filter_by, labels, model):
    path = shared_data / "cifar10n_small_5k_with_images.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    with np.load(path, allow_pickle=False) as archive:
        probs, given = archive[f"pred_probs_{model}"], archive[labels].astype(np.int64)
    flags = find_label_issues(probs, given, filter_by=filter_by)
    wanted = cleanlab_flags(probs, given, filter_by)
    assert flags.sum() == wanted.sum()
    thresholds, _ = estimate_noise(probs, given)
    if is_untied(probs, given, thresholds):
        assert np.array_equal(flags, wanted)
    else:
        # Among equals cleanlab's choice depends on the order of the rows.
        assert np.count_nonzero(flags != wanted) <= 0.002 * len(flags)


@every_filter
def test_flags__as_many_as_cleanlab_where_everything_ties(filter_by):
    rng = np.random.default_rng(4)
    probs = np.array([[0.75, 0.125, 0.125], [0.125, 0.75, 0.125], [0.25, 0.25, 0.5]])
    true = rng.integers(0, 3, 600)
    given = np.where(rng.random(600) < 0.2, rng.integers(0, 3, 600), true)
    flags = find_label_issues(probs[true], given, filter_by=filter_by)
    assert flags.sum() == cleanlab_flags(probs[true], given, filter_by).sum()


@every_filter
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flags__move_with_the_items(filter_by, dtype):
    probs, given, _ = make(11, n=400, dtype=dtype)
    probs[::7] = np.round(probs[::7] * 4) / 4
    order = np.random.default_rng(0).permutation(400)
    hashes = np.random.default_rng(1).permutation(400).astype(np.uint64)
    flags = find_label_issues(probs, given, filter_by=filter_by, item_hash=hashes)
    moved = find_label_issues(
        probs[order], given[order], filter_by=filter_by, item_hash=hashes[order]
    )
    assert np.array_equal(moved, flags[order])


@every_filter
def test_flags__do_not_depend_on_the_names_of_the_classes(filter_by):
    probs, given, _ = make(12, n=500, n_classes=6)
    names = np.random.default_rng(0).permutation(6)
    flags = find_label_issues(probs, given, filter_by=filter_by)
    renamed = find_label_issues(probs[:, np.argsort(names)], names[given], filter_by=filter_by)
    assert np.array_equal(flags, renamed)


@every_filter
def test_flags__a_class_that_nobody_has_changes_nothing(filter_by):
    probs, given, _ = make(13, n=300)
    wider = np.concatenate([probs, np.zeros((300, 1))], axis=1)
    flags = find_label_issues(probs, given, filter_by=filter_by)
    assert np.array_equal(flags, find_label_issues(wider, given, filter_by=filter_by))


@pytest.mark.parametrize("filter_by", ["confident_learning", "predicted_neq_given"])
def test_flags__every_item_twice_is_flagged_twice(filter_by):
    probs, given, _ = make(14)
    flags = find_label_issues(probs, given, filter_by=filter_by)
    doubled = find_label_issues(
        np.concatenate([probs, probs]), np.concatenate([given, given]), filter_by=filter_by
    )
    assert np.array_equal(doubled, np.concatenate([flags, flags]))


@every_filter
def test_flags__clean_labels_have_no_issues(filter_by):
    given = np.repeat(np.arange(4), 10)
    assert not find_label_issues(np.eye(4)[given], given, filter_by=filter_by).any()


@every_filter
@pytest.mark.parametrize("n_classes", [1, 2])
@pytest.mark.parametrize("n", [0, 1])
def test_flags__of_nothing_of_one_item_and_of_one_class(filter_by, n, n_classes):
    probs = np.full((n, n_classes), 1.0 / n_classes)
    flags = find_label_issues(probs, np.zeros(n, int), filter_by=filter_by)
    assert flags.tolist() == [False] * n


@every_filter
@both_engines
@pytest.mark.parametrize("collect", [0, 5])
def test_flags__do_not_depend_on_when_counting_ends(find, filter_by, collect, monkeypatch):
    probs, given, _ = make(15, n=500)
    probs[::3] = np.round(probs[::3] * 4) / 4
    flags = find_label_issues(probs, given, filter_by=filter_by)
    monkeypatch.setattr(sel, "COLLECT", collect)
    monkeypatch.setattr(sel, "CELLS", 1)
    monkeypatch.setattr("labelops.confident.issues.BLOCK_CELLS", 100)
    assert np.array_equal(flags, find(probs, given, filter_by=filter_by))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probs": np.full((2, 2), np.nan)}, r"probs must lie in \[0, 1\]; row 0 does not"),
        ({"probs": np.array([[3.0, -1.0], [0.5, 0.5]])}, "Were logits passed instead of prob"),
        ({"probs": np.full((2, 2), 1, np.int64)}, r"must be float32 or float64 .* got int64 \(2,"),
        ({"given": np.array([0, 2])}, r"given must lie in 0…1, the columns of probs; row 1 has 2"),
        ({"given": np.array([0, -1])}, r"row 1 has -1"),
        ({"given": np.array([0])}, "given must be 2 integers, one for each row of probs, got"),
        ({"filter_by": "all"}, "filter_by must be one of .* got 'all'"),
    ],
)
def test_inputs__that_do_not_fit_are_refused(change, message):
    fitting = {"probs": np.full((2, 2), 0.5), "given": np.array([0, 1])}
    with pytest.raises(ValueError, match=message):
        find_label_issues(**fitting | change)
