"""Losses of positive and unlabelled items: loops of the papers, and the supervised risk."""

import itertools

import numpy as np
import pytest
from scipy.special import expit

from labelops.partial.risks import (
    SETTINGS,
    cvir_weights,
    dist_pu,
    kept_unlabelled,
    nnpu,
    population,
    risk_weights,
    upu,
    vpu,
    vpu_between,
)
from tests.oracles import positive_unlabelled as oracle

LOSSES = {"logistic": oracle.logistic, "sigmoid": lambda z: oracle.sigmoid(-z)}


def drawn(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=n) * 2, rng.choice([1, 0, -1], n, p=[0.3, 0.2, 0.5]).astype(np.int8)


@pytest.mark.parametrize("margin", LOSSES)
@pytest.mark.parametrize("seed", range(4))
def test_upu_and_nnpu__are_the_loops_of_the_papers(margin, seed):
    z, state = drawn(seed)
    positive, negative = oracle.case_control(z, state, 0.3, LOSSES[margin])
    more = {"prior": 0.3, "margin": margin}
    assert upu(z, state, setting="case-control", **more) == pytest.approx(positive + negative)
    want = positive + max(0, negative)
    assert nnpu(z, state, setting="case-control", **more) == pytest.approx(want)
    positive, hidden, known = oracle.one_sample(z, state, 0.3, LOSSES[margin])
    assert upu(z, state, **more) == pytest.approx(positive + hidden + known)
    assert nnpu(z, state, **more) == pytest.approx(positive + max(0, hidden) + known)


def test_nnpu__is_never_negative_where_upu_is():
    z, state = np.array([6.0, 6.0, -6.0, -6.0]), np.array([1, 1, -1, -1])
    assert upu(z, state, prior=0.5) < -1
    assert 0 <= nnpu(z, state, prior=0.5) < 0.01


def population_risk(margin: str) -> tuple[float, float]:
    """Return the supervised risk of f(x) = 1.3 x − 0.2 and the share of positives: a million."""
    rng = np.random.default_rng(99)
    share, x = 0.4, rng.normal(size=1_000_000)
    z = [1.3 * (x + side) - 0.2 for side in (1, -1)]
    loss = {"logistic": lambda z: np.logaddexp(0, -z), "sigmoid": lambda z: expit(-z)}[margin]
    return share * loss(z[0]).mean() + (1 - share) * loss(-z[1]).mean(), share


def risks_of_draws(margin, prior, setting, *, is_one_sample, negatives=0.0, draws=1500, n=150):
    """Return risks of many small draws; of negatives that are known, rather the extreme ones."""
    rng = np.random.default_rng(1)
    risks = []
    for _ in range(draws):
        y = rng.random(n) < 0.4
        x = rng.normal(np.where(y, 1.0, -1.0))
        chance = rng.random(n)
        state = np.where(y & (chance < 0.6), 1, -1)
        state[~y & (chance < negatives * 2 * expit(-x))] = 0
        if not is_one_sample:
            # The same number of positives, beside the draw.
            state, more = np.full(n, -1), rng.normal(1.0, 1.0, 36)
            x, state = np.append(x, more), np.append(state, np.ones(36, int))
        risks.append(upu(1.3 * x - 0.2, state, prior=prior, setting=setting, margin=margin))
    return float(np.mean(risks)), float(np.std(risks) / np.sqrt(draws))


@pytest.mark.parametrize("margin", LOSSES)
def test_upu__is_unbiased_in_the_setting_that_the_data_has_and_in_no_other(margin):
    want, share = population_risk(margin)
    of_unlabelled = share * 0.4 / (1 - share * 0.6)
    found, error = risks_of_draws(margin, of_unlabelled, "one-sample", is_one_sample=True)
    assert abs(found - want) < 4 * error + 1e-3
    found, error = risks_of_draws(margin, share, "case-control", is_one_sample=False)
    assert abs(found - want) < 4 * error + 1e-3
    for prior in (share, of_unlabelled):
        found, error = risks_of_draws(margin, prior, "case-control", is_one_sample=True)
        assert abs(found - want) > 8 * error


def test_known_negatives__of_any_choice_leave_the_risk_unbiased():
    want, share = population_risk("logistic")
    # Known negatives leave fewer unlabelled ones: of 0.6 negatives a fifth is known on average.
    rng = np.random.default_rng(5)
    known = 0.2 * 2 * expit(-rng.normal(-1.0, 1.0, 1_000_000)).mean()
    unlabelled = share * 0.4, (1 - share) * (1 - known)
    prior = unlabelled[0] / sum(unlabelled)
    found, error = risks_of_draws(
        "logistic", prior, "one-sample", is_one_sample=True, negatives=0.2
    )
    assert abs(found - want) < 4 * error + 1e-3


def test_no_positives__in_the_population_leave_every_item_negative():
    z, state = drawn(0)
    a, b = risk_weights(state, prior=0.0, setting="case-control")
    assert not a.any()
    assert (b >= 0).all()
    assert upu(z, state, prior=0, setting="case-control") > upu(
        z - 9, state, prior=0, setting="case-control"
    )
    # In one sample the labelled ones are positive all the same: all other items are negative.
    want = np.mean(np.logaddexp(0, np.where(state == 1, -z, z)))
    assert upu(z, state, prior=0) == pytest.approx(want)


def test_all_positive__leaves_nothing_for_negatives():
    state = np.array([1, 1, -1, -1])
    a, b = risk_weights(state, prior=1.0)
    assert a.sum() == pytest.approx(1)
    assert b.sum() == pytest.approx(0)


def test_known_labels__give_the_supervised_risk():
    z, state = drawn(3)
    state[state == -1] = 0
    want = np.mean(np.logaddexp(0, np.where(state == 1, -z, z)))
    assert upu(z, state, prior=0.7) == pytest.approx(want)
    assert nnpu(z, state, prior=0.7, margin="logistic") == pytest.approx(want)


def test_dist_pu__is_its_formula_and_0_where_answers_are_right_and_sure():
    z, state = drawn(2)
    p = expit(z)
    means = [p[state == s].mean() for s in (1, -1, 0)]
    entropy = np.mean([-q * np.log(q) - (1 - q) * np.log(1 - q) for q in p[state == -1]])
    want = 2 * 0.3 * (1 - means[0]) + abs(means[1] - 0.3) + 0.5 * entropy
    found = dist_pu(z, state, prior=0.3, setting="case-control", entropy=0.5)
    assert found == pytest.approx(want)
    n = len(z)
    n_p, n_u, n_n = (int((state == s).sum()) for s in (1, -1, 0))
    want = (n_p + 2 * 0.3 * n_u) / n * (1 - means[0]) + n_u / n * abs(means[1] - 0.3)
    assert dist_pu(z, state, prior=0.3) == pytest.approx(want + n_n / n * means[2])
    right = np.array([90.0, 90.0, -90.0, -90.0, -90.0])
    state = np.array([1, -1, -1, -1, 0])
    assert dist_pu(right, state, prior=1 / 3, entropy=1.0) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_vpu__is_the_loop_of_the_paper(seed):
    z, state = drawn(seed)
    assert vpu(z, state) == pytest.approx(oracle.vpu(z, state, with_positives=True))
    found = vpu(z, state, setting="case-control")
    assert found == pytest.approx(oracle.vpu(z, state, with_positives=False))


def test_vpu__has_the_means_of_the_fixture():
    """Mean probabilities .472850 and .291657 of four items with two classes."""
    z = np.array([[2, -1], [0.5, -2], [-1, 1], [-2, -3]])
    for c, (mean, first) in enumerate([(0.472850, 0), (0.291657, 2)]):
        state = np.where(np.arange(4) == first, 1, -1)
        want = np.log(mean) - np.log(expit(z[first, c]))
        assert vpu(z[:, c], state) == pytest.approx(want, abs=2e-6)


def test_vpu__is_least_for_the_true_posterior_up_to_a_factor():
    """Of a distribution on four points, by search over all Φ on a grid."""
    positive, negative = np.array([4, 3, 1, 0]), np.array([0, 1, 3, 8])
    share = positive / (positive + negative)
    x = np.repeat(np.arange(4), 2 * positive + negative)
    state = np.concatenate(
        [[1] * a + [-1] * (a + b) for a, b in zip(positive, negative, strict=True)]
    )
    # As case–control: the unlabelled are the population, the labelled another draw.
    phi = 0.9 * share[x] + 1e-12
    least = vpu(np.log(phi) - np.log(1 - phi), state, setting="case-control")
    for a, b, c in itertools.product(np.linspace(0.05, 0.95, 7), repeat=3):
        phi = np.array([a, b, c, 1e-12])[x]
        assert vpu(np.log(phi) - np.log(1 - phi), state, setting="case-control") >= least - 1e-9


def test_between__is_0_where_log_phi_is_that_of_the_line():
    rng = np.random.default_rng(0)
    z, share = rng.normal(size=20), rng.beta(0.3, 0.3, 20)
    phi = share * expit(z) + 1 - share
    mixed = np.log(phi) - np.log1p(-phi)
    assert vpu_between(z, share, mixed) == pytest.approx(0, abs=1e-20)
    off = np.mean([(np.log(f) - np.log(0.5)) ** 2 for f in phi])
    assert vpu_between(z, share, np.zeros(20)) == pytest.approx(off)


def test_kept__are_the_lowest_of_the_unlabelled():
    z, state = drawn(1)
    kept = kept_unlabelled(z, state, prior=0.35)
    n = int((state == -1).sum())
    lowest = sorted(z[state == -1])[: n - int(0.35 * n)]
    assert sorted(z[kept]) == lowest
    assert not kept[state != -1].any()
    a, b = cvir_weights(state, kept)
    assert a.sum() == pytest.approx(0.5)
    assert b.sum() == pytest.approx(0.5)
    assert ((b > 0) == (kept | (state == 0))).all()
    tied = kept_unlabelled(np.zeros(4), np.full(4, -1), prior=0.5)
    assert tied.tolist() == [False, False, True, True]


@pytest.mark.parametrize("setting", SETTINGS)
def test_order_and_repetition__of_items_change_nothing(setting):
    z, state = drawn(4)
    order = np.random.default_rng(0).permutation(len(z))
    for loss in (
        lambda z, s: upu(z, s, prior=0.3, setting=setting),
        lambda z, s: nnpu(z, s, prior=0.3, setting=setting),
        lambda z, s: dist_pu(z, s, prior=0.3, setting=setting, entropy=0.1),
        lambda z, s: vpu(z, s, setting=setting),
    ):
        want = loss(z, state)
        assert loss(z[order], state[order]) == pytest.approx(want)
        assert loss(np.tile(z, 3), np.tile(state, 3)) == pytest.approx(want)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("state", [[], [1], [0], [-1], [1, 1], [-1, -1], [1, 0], [1, -1]])
def test_absent_kinds__have_no_part(state, setting):
    z, s = np.linspace(-800, 800, len(state)), np.array(state, int)
    for prior in (0.0, 0.4, 1.0):
        shares = population(s, prior=prior, setting=setting)
        assert all(0 <= share <= 1 for share in shares)
        for found in (
            upu(z, s, prior=prior, setting=setting),
            nnpu(z, s, prior=prior, setting=setting),
            dist_pu(z, s, prior=prior, setting=setting, entropy=1.0),
        ):
            assert np.isfinite(found)


def test_input__that_is_none_is_refused():
    with pytest.raises(ValueError, match="item 1 has 2"):
        risk_weights(np.array([1, 2]), prior=0.5)
    with pytest.raises(ValueError, match=r"prior must be in \[0, 1\], got nan"):
        risk_weights(np.array([1, -1]), prior=np.nan)
    with pytest.raises(ValueError, match="setting must be one of"):
        risk_weights(np.array([1, -1]), prior=0.5, setting="two-sample")
    with pytest.raises(ValueError, match="prior"):
        kept_unlabelled(np.zeros(2), np.array([1, -1]), prior=1.5)
