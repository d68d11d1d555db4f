"""Which bags contradict their count, and how well counts of bags not learned from are predicted."""

import numpy as np
import pyarrow as pa

from labelops.overdispersion import dispersion, widened_p_values
from labelops.proportions.tail import count_tails, false_discovery_rates
from pipelines.core.stage import Arrays, Context

# N items, B bags, K classes

LEVEL = 0.05
"""Bags are improbable at this rate of false discoveries."""


def bags_folder(stage: str) -> str:
    """Return the folder of the run that has the table of bags of a stage."""
    return f"{stage}_bags"


def shown_classes(n_classes: int) -> list[int]:
    """Return the classes whose totals are looked at: of two only the second, which tells both."""
    return [1] if n_classes == 2 else list(range(n_classes))


def judge_bags(probs: np.ndarray, start: np.ndarray, counts: np.ndarray) -> Arrays:
    """Return how improbable every count is under a model that was not fitted to it.

    Parameters
    ----------
    probs
        Of classes, by a model that has not seen the count of the item's bag, shape (N, K).
    start, counts
        Bags, and their counts of classes, shape (B, K).

    Returns
    -------
    `expected`, `std`, `p_value` (Poisson-binomial, two-sided), `q_value` (Benjamini and Hochberg,
    of p-values with the dispersion taken out), all of shape (B, K); `dispersion`.

    Notes
    -----
    A class is counted against all others.
    """
    from labelops.fast.cardinality import marginals

    n_classes = counts.shape[1]
    tails = []
    for k in shown_classes(n_classes):
        p = np.clip(probs[:, k], 0, 1)
        rest = 1 - p
        # At most one class of an item is likely, so all classes together cost one pass.
        is_likely = p > 0.5
        rest[is_likely] = np.delete(probs[is_likely], k, axis=1).sum(axis=1).clip(0, 1)
        tails.append(count_tails(p, start, counts[:, k], rest=rest, find=marginals))
    log_tails = np.stack([np.minimum(t.log_lower, t.log_upper) for t in tails], axis=1)
    factor = dispersion(log_tails.ravel())
    q_value = false_discovery_rates(widened_p_values(log_tails.ravel(), dispersion=factor))
    judged = {
        "expected": np.stack([t.expected for t in tails], axis=1),
        "std": np.stack([t.std for t in tails], axis=1),
        "p_value": np.stack([t.p_value for t in tails], axis=1),
        "q_value": q_value.reshape(log_tails.shape),
    }
    if n_classes == 2:
        judged = {name: np.repeat(values, 2, axis=1) for name, values in judged.items()}
        judged["expected"][:, 0] = counts.sum(axis=1) - judged["expected"][:, 1]
    return {**judged, "dispersion": np.array(factor)}


def bag_losses(probs: np.ndarray, start: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return n · KL(shares ‖ mean prediction) of every bag, in nats, shape (B,).

    The loss by which networks are stopped, `labelops.nn.bags`; about minus the log-likelihood of
    the counts, but for what the best guess of the shares would cost too.
    """
    size = np.diff(start)
    share = counts / size[:, None]
    mean = np.add.reduceat(probs, start[:-1], axis=0) / size[:, None]
    ratio = np.where(share > 0, share, 1.0) / np.maximum(np.where(share > 0, mean, 1.0), 1e-300)
    return np.asarray(size * np.maximum((share * np.log(ratio)).sum(axis=1), 0.0))


def constant_losses(start: np.ndarray, counts: np.ndarray, bags: np.ndarray) -> np.ndarray:
    """Return the same for some bags if every item is predicted the shares of all other bags."""
    rest = np.setdiff1d(np.arange(len(counts)), bags)
    if not len(rest):
        return np.full(len(bags), np.nan)
    share = counts[rest].sum(axis=0) / max(counts[rest].sum(), 1)
    own = counts[bags] / np.diff(start)[bags][:, None]
    ratio = np.where(own > 0, own, 1.0) / np.maximum(np.where(own > 0, share, 1.0), 1e-12)
    return np.asarray(np.diff(start)[bags] * (own * np.log(ratio)).sum(axis=1))


def bags_schema(ids: pa.DataType) -> pa.Schema:
    """Return the columns of the table of bags."""
    return pa.schema(
        [
            ("bag_id", pa.int64() if pa.types.is_integer(ids) else pa.string()),
            ("class", pa.string()),
            ("n", pa.int64()),
            ("count", pa.int64()),
            ("expected", pa.float64()),
            ("std", pa.float64()),
            ("p_value", pa.float64()),
            ("q_value", pa.float64()),
            ("residual", pa.float64()),
            ("converged", pa.bool_()),
            ("imposed", pa.bool_()),
        ]
    )


def ranked(census: Arrays, judged: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Return bags and classes, the most improbable totals first, ties by deviation and by id."""
    n_bags, n_classes = census["counts"].shape
    shown = shown_classes(n_classes)
    bag, k = np.repeat(np.arange(n_bags), len(shown)), np.tile(shown, n_bags)
    z = (census["counts"] - judged["expected"]) / np.maximum(judged["std"], 1e-12)
    order = np.lexsort([k, bag, -np.abs(z[bag, k]), judged["q_value"][bag, k]])
    return bag[order], k[order]


def bags_table(ctx: Context, census: Arrays, judged: Arrays) -> pa.Table:
    """Return a row for every bag, and class where there are more than two; improbable ones first.

    `judged` is what `judge_bags` found, `bag_converged` and, where some totals were left out,
    `is_imposed`.
    """
    bag, k = ranked(census, judged)
    arrays = [
        pa.array(census["bag_ids"][bag].tolist()),
        pa.array(census["classes"][k].tolist(), pa.string()),
        census["sizes"][bag],
        census["counts"][bag, k],
        *(judged[name][bag, k] for name in ("expected", "std", "p_value", "q_value")),
        census["residual"][bag],
        judged["bag_converged"][bag],
        judged["is_imposed"][bag] if "is_imposed" in judged else np.ones(len(bag), bool),
    ]
    schema = bags_schema(ctx.types["bag_id"])
    return pa.table(arrays, names=schema.names).cast(schema)
