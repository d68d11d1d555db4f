"""Heads on candidate sets: losses by their definitions, weights by loops, planted truth."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from labelops.nn.candidate_heads import (
    DECAYS,
    CandidateLikelihood,
    Method,
    Reweighted,
    check_rival,
    fit_candidates,
    likeliest,
    predict_candidates,
)
from labelops.partial.candidates import (
    balance,
    candidate_loss,
    candidate_weights,
    fit_candidate_pool,
    reweighted_loss,
)
from tests.oracles.candidates import weights_by_loops

N, K, F = 40, 4, 3


def quadrants(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return points, the quarter each lies in, that quarter and another one, and folds."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    true = (x[:, 0] > 0) + 2 * (x[:, 1] > 0)
    is_candidate = np.eye(4, dtype=bool)[true]
    is_candidate[np.arange(n), (true + rng.integers(1, 4, n)) % 4] = True
    return x, true, is_candidate, np.arange(n) % F


def said(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(F, N, K))).float()


def test_loss__is_that_of_the_definitions_over_the_items_outside_each_fold() -> None:
    _, _, is_candidate, fold = quadrants(N)
    logits, rows = said(), torch.arange(5, 25)
    outside = torch.from_numpy(fold[None, 5:25] != np.arange(F)[:, None])
    probs = softmax(logits.numpy().astype(np.float64), axis=2)
    cc, rc = CandidateLikelihood(is_candidate), Reweighted(is_candidate, fold, "out of fold")
    even = candidate_weights(np.ones((N, K)), is_candidate)
    own = weights_by_loops(said(1).numpy(), is_candidate, fold)
    for objective, of_item, after in (
        (cc, lambda p: candidate_loss(p, is_candidate), None),
        (rc, lambda p: reweighted_loss(p, even), None),
        (rc, lambda p: reweighted_loss(p, own), said(1)),
    ):
        if after is not None:
            objective.after_epoch(0, lambda after=after: after)
        total = 0.0
        for f in range(F):
            losses = of_item(probs[f])
            total += sum(losses[i] for i in range(5, 25) if fold[i] != f)
        loss = objective.loss(logits[:, 5:25], rows, outside)
        assert float(loss) == pytest.approx(total / 20, rel=1e-5)


@pytest.mark.parametrize("source", ["own", "out of fold", "none"])
def test_weights__come_from_whom_they_should(source: str) -> None:
    _, _, is_candidate, fold = quadrants(N)
    objective = Reweighted(is_candidate, fold, source)
    logits = said()
    objective.after_epoch(0, lambda: logits)
    weights = objective.weights.numpy()
    if source == "own":
        for f in range(F):
            loop = weights_by_loops(logits.numpy(), is_candidate, np.full(N, f))
            np.testing.assert_allclose(weights[f], loop, rtol=1e-5)
    elif source == "out of fold":
        np.testing.assert_allclose(
            weights[0], weights_by_loops(logits.numpy(), is_candidate, fold), rtol=1e-5
        )
    else:
        even = candidate_weights(np.ones((N, K)), is_candidate)
        np.testing.assert_allclose(weights[0], even, rtol=1e-6)


def test_balanced_weights__are_those_of_the_definition_over_the_items_of_each_network() -> None:
    _, _, is_candidate, fold = quadrants(N)
    objective = Reweighted(is_candidate, fold, "own", is_balanced=True)
    logits = said()
    objective.after_epoch(0, lambda: logits)
    for f in range(F):
        mine = fold != f
        loop = weights_by_loops(logits.numpy(), is_candidate, np.full(N, f))
        wanted = balance(loop[mine], is_candidate[mine])
        np.testing.assert_allclose(objective.weights[f].numpy()[mine], wanted, rtol=1e-4)


def test_rare_class__is_not_taken_over_by_the_one_that_stands_beside_it() -> None:
    """Items of class 1 always have candidate 0, too, and are a fifth of those of class 0."""
    rng = np.random.default_rng(0)
    true = np.where(rng.random(1500) < 0.3, 2, np.where(rng.random(1500) < 0.17, 1, 0))
    x = (1.5 * np.eye(3)[true] + rng.normal(0, 1, (1500, 3))).astype(np.float32)
    is_candidate = np.eye(3, dtype=bool)[true]
    is_candidate[true == 1, 0] = True
    is_candidate[(true == 0) & (rng.random(1500) < 0.5), 2] = True
    fold, found = np.arange(1500) % F, {}
    for method in ("rc", "rc_balanced"):
        networks = fit_candidates(
            x, is_candidate, fold, n_folds=F, method=method, hidden=0, decay=0.01
        )
        weights = candidate_weights(predict_candidates(networks, x, fold), is_candidate)
        found[method] = (weights.argmax(axis=1) == true)[true == 1].mean()
    assert found["rc_balanced"] > found["rc"] + 0.1


@pytest.mark.parametrize("hidden", [0, 16])
@pytest.mark.parametrize("method", ["rc", "rc_balanced", "rc_out_of_fold", "cc", "average"])
def test_heads__find_the_true_class_of_items_that_they_have_not_seen(
    method: Method, hidden: int
) -> None:
    x, true, is_candidate, fold = quadrants(900)
    settings = {"hidden": hidden, "epochs": 20, "rate": 0.03, "decay": 0.01}
    networks = fit_candidates(x, is_candidate, fold, n_folds=F, method=method, **settings)
    probs = predict_candidates(networks, x, fold)
    # Without weights all candidates pull alike, and the wrong ones move the borders.
    least = 0.85 if method == "average" else 0.93
    assert (probs.argmax(axis=1) == true).mean() > least
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)


def test_sets_of_one_class__are_labels() -> None:
    """All three losses are then cross-entropy, to the same bits but for rounding."""
    x, true, _, fold = quadrants(200)
    one = np.eye(4, dtype=bool)[true]
    parts = [
        predict_candidates(
            fit_candidates(x, one, fold, n_folds=F, method=method, hidden=0, epochs=5, decay=0.1),
            x,
            fold,
        )
        for method in ("rc", "cc", "average")
    ]
    np.testing.assert_allclose(parts[0], parts[1], atol=1e-4)
    np.testing.assert_allclose(parts[0], parts[2], atol=1e-4)


@pytest.mark.parametrize("method", ["rc", "rc_balanced", "cc", "average"])
def test_network_of_a_fold__has_not_seen_its_items(method: Method) -> None:
    x, _, is_candidate, fold = quadrants(120)
    other = np.where((fold == 1)[:, None], ~is_candidate, is_candidate)
    a, b = (
        predict_candidates(
            fit_candidates(x, sets, fold, n_folds=F, method=method, hidden=4, epochs=3, decay=0.1),
            x,
            fold,
        )
        for sets in (is_candidate, other)
    )
    assert np.array_equal(a[fold == 1], b[fold == 1])
    assert not np.array_equal(a[fold == 0], b[fold == 0])


def test_network_of_a_fold_without_items__is_trained_on_all() -> None:
    x, true, is_candidate, fold = quadrants(600)
    networks = fit_candidates(x, is_candidate, fold, n_folds=F + 1, hidden=0, rate=0.03)
    new, true, _, _ = quadrants(300, seed=1)
    probs = predict_candidates(networks, new, np.full(300, F))
    assert (probs.argmax(axis=1) == true).mean() > 0.9


def test_weight_decay__is_that_at_which_sets_are_likeliest() -> None:
    x, _, is_candidate, fold = quadrants(300)
    rng = np.random.default_rng(0)
    # Many features that say nothing: the largest decay does best.
    x = np.concatenate([x, rng.normal(size=(300, 200)).astype(np.float32)], axis=1)
    losses, bits = {}, {}
    for decay in DECAYS:
        networks = fit_candidates(
            x, is_candidate, fold, n_folds=F, hidden=0, epochs=10, decay=decay
        )
        said = predict_candidates(networks, x, fold)
        losses[decay], bits[decay] = fit_candidate_pool(said[None], is_candidate).loss, networks.out
    best = min(losses, key=lambda decay: losses[decay])
    found = fit_candidates(x, is_candidate, fold, n_folds=F, hidden=0, epochs=10)
    assert np.array_equal(found.out, bits[best])
    assert best == max(DECAYS)


def test_same_items__give_the_same_bits_and_a_row_stands_alone() -> None:
    x, _, is_candidate, fold = quadrants(100)
    a, b = (fit_candidates(x, is_candidate, fold, n_folds=F, epochs=3) for _ in range(2))
    assert all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))
    whole = predict_candidates(a, x, fold)
    for i in (0, 57, 99):
        alone = predict_candidates(a, x[i : i + 1], fold[i : i + 1])
        assert np.array_equal(alone[0], whole[i])


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("n_classes", [1, 3])
def test_few_items_and_one_class__are_legal(n: int, n_classes: int) -> None:
    x, sets = np.ones((n, 3), np.float32), np.ones((n, n_classes), bool)
    networks = fit_candidates(x, sets, np.arange(n) % F, n_folds=F, hidden=2, epochs=2)
    probs = predict_candidates(networks, np.ones((4, 3), np.float32), np.arange(4) % F)
    assert np.isfinite(probs).all()


def test_bad_input__is_refused() -> None:
    x, _, is_candidate, fold = quadrants(6)
    with pytest.raises(ValueError, match="at least one, 6 have none"):
        fit_candidates(x, np.zeros((6, 4), bool), fold, n_folds=F)
    with pytest.raises(ValueError, match="folds 0 to 1 were expected, item 2 has 2"):
        fit_candidates(x, is_candidate, fold, n_folds=2)
    with pytest.raises(ValueError, match=r"method must be one of .*'rc'.*, got 'proden'"):
        fit_candidates(x, is_candidate, fold, n_folds=F, method="proden")  # type: ignore[arg-type]


def test_first_weights__are_those_of_the_candidates_to_start_from() -> None:
    _, _, is_candidate, fold = quadrants(N)
    start = is_candidate & (np.arange(K) != is_candidate.argmax(axis=1)[:, None])
    weights = Reweighted(is_candidate, fold, "own", start=start).weights.numpy()[0]
    np.testing.assert_allclose(weights, start / start.sum(axis=1, keepdims=True))


def clusters(n: int, rate: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points around four centres, which one, and it beside the next one at some rate."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, n)
    x = (np.eye(4)[true] + rng.normal(0, 0.2, (n, 4))).astype(np.float32)
    is_candidate = np.eye(4, dtype=bool)[true]
    is_candidate[np.arange(n), (true + 1) % 4] = rng.random(n) < rate
    return x, true, is_candidate


def test_rival__is_as_good_where_two_classes_always_stand_together_and_only_there() -> None:
    fold = np.arange(600) % F
    x, true, is_candidate = clusters(600, 1.0)
    found = check_rival(x, is_candidate, fold, true, n_folds=F)
    assert found.is_as_good
    assert (found.choice == true).mean() < 0.25
    # Where it does not always, it comes back, or is worse.
    x, true, is_candidate = clusters(600, 0.6)
    found = check_rival(x, is_candidate, fold, true, n_folds=F)
    assert not found.is_as_good or (found.choice == true).mean() > 0.8
    # Wrong candidates drawn evenly: it comes back.
    x, true, is_candidate, fold = quadrants(600)
    assert (check_rival(x, is_candidate, fold, true, n_folds=F).choice == true).mean() > 0.8
    sole = np.eye(4, dtype=bool)[true]
    assert check_rival(x, sole, fold, true, n_folds=F).choice.tolist() == true.tolist()


def test_likeliest__finds_the_class_that_stands_beside_all_others_and_decays_as_before() -> None:
    rng, fold = np.random.default_rng(1), np.arange(400) % 2
    true = rng.integers(0, 4, 400)
    x = (np.eye(4)[true] + rng.normal(0, 0.5, (400, 4))).astype(np.float32)
    beside, even = (np.eye(4, dtype=bool)[true] for _ in range(2))
    beside[:, 0] = True
    even |= rng.random((400, 4)) < 0.3
    right = {}
    for sets in (beside, even):
        how = likeliest(x, sets, fold, n_folds=2, hidden=0)
        for method in ("rc", "rc_balanced"):
            settings = {"method": method, "decay": how.decay}
            networks = fit_candidates(x, sets, fold, n_folds=2, hidden=0, **settings)
            said = np.where(sets, predict_candidates(networks, x, fold), -1)
            right[method] = (said.argmax(axis=1) == true).mean()
        assert right[how.method] >= max(right.values()) - 0.01
        assert how.decay in DECAYS
        if sets is beside:
            assert how.method == "rc_balanced"
    one = likeliest(x, beside, fold, methods=("cc",), n_folds=2, hidden=0, epochs=2)
    assert one.method == "cc"
