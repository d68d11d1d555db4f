"""Products of rows: a loop in plain Python, to the last bit; and rows that stand alone."""

import numpy as np
import pytest

from labelops.fast.products import affine
from labelops.nn.linear import Heads, Scale, predict
from labelops.nn.network_heads import predict_networks
from labelops.nn.prototypes import Prototypes, predict_prototypes
from labelops.nn.shallow import Networks

SHAPES = [(d, k) for d in (0, 1, 4, 7, 64) for k in (1, 2, 3, 5, 9, 10, 16)]


def draw(*shape, kind=np.float64):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(kind)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize(("d", "k"), SHAPES)
def test_product__is_the_sum_in_the_order_of_the_features_to_the_last_bit(d, k, kind):
    x, weight, bias = draw(5, d, kind=kind), draw(d, k, kind=kind), draw(k, kind=kind)
    want = np.tile(bias, (5, 1))
    for feature in range(d):
        want += x[:, feature, None] * weight[feature]
    assert want.dtype == kind
    assert np.array_equal(affine(x, weight, bias), want)


def test_product__does_not_mind_how_arrays_lie_in_memory():
    x, weight, bias = draw(6, 5), draw(5, 3), draw(3)
    want = affine(x, weight, bias)
    assert np.array_equal(affine(np.asfortranarray(x), np.asfortranarray(weight), bias), want)
    assert np.array_equal(affine(np.repeat(x, 2, axis=1)[::2, ::2], weight, bias), want[::2])
    assert affine(x[:0], weight, bias).shape == (0, 3)


@pytest.mark.parametrize(
    ("x", "weight", "bias"), [((2, 5), (3, 2), 2), ((2, 3), (3, 2), 3), ((2,), (3, 2), 2)]
)
def test_shapes_that_do_not_match__are_refused(x, weight, bias):
    with pytest.raises(ValueError, match="does not match"):
        affine(np.zeros(x), np.zeros(weight), np.zeros(bias))


@pytest.mark.parametrize("k", [2, 3, 4, 5, 9, 10, 17])
@pytest.mark.parametrize("head", ["softmax", "sigmoid", "prototypes", "network"])
def test_what_a_head_says_of_an_item__is_the_same_in_any_company(head, k):
    """Libraries of linear algebra differ from row to row at some of these widths."""
    d, n_folds = 16, 2
    x, fold = draw(60, d, kind=np.float32), np.arange(60) % n_folds
    scale = Scale(draw(d), np.abs(draw(d)) + 1)
    single = np.float32
    if head == "prototypes":
        means = draw(n_folds, k, d, kind=single)
        said = Prototypes(np.ones(d, single), draw(n_folds, d, kind=single), means, np.array(0.5))
        predictor = predict_prototypes
    elif head == "network":
        layers = ((3, n_folds, d, 8), (3, n_folds, 8), (3, n_folds, 8, k), (3, n_folds, k))
        said = Networks(*scale, *(draw(*shape, kind=single) for shape in layers))
        predictor = predict_networks
    else:
        said = Heads(draw(n_folds, d, k), draw(n_folds, k), scale, 0.1, 1)

        def predictor(*args):
            return predict(*args, link=head)

    whole = predictor(said, x, fold)
    for company in (1, 2, 3, 7):
        cut = range(0, len(x), company)
        parts = [predictor(said, x[a : a + company], fold[a : a + company]) for a in cut]
        assert np.array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(0).permutation(len(x))
    assert np.array_equal(predictor(said, x[order], fold[order]), whole[order])
