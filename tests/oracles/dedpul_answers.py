"""What the authors' program answers on made-up scores, and how it was asked.

    python tests/oracles/dedpul_answers.py FOLDER

FOLDER holds `dedpul.py` and `dedpulUtils.py` of https://github.com/acmi-lab/PU_learning
(`baselines/`, with the relative import made absolute, and `expanding(center=False)` written
`expanding()`, as pandas 2 wants it). Needs pandas and scikit-learn.
"""

import sys

import numpy as np

CASES = [
    (mean, share, n_labelled, n_unlabelled)
    for mean in (1.0, 2.0, 4.0)
    for share, n_labelled, n_unlabelled in (
        (0.1, 1000, 3000),
        (0.3, 3000, 3000),
        (0.5, 500, 4000),
        (0.8, 3000, 2000),
    )
]
"""Distance of the means of two normal densities, share of positives, and sizes."""

ANSWERS = [
    0.2909,
    0.4064,
    0.5772,
    0.8304,
    0.1107,
    0.3339,
    0.5023,
    0.8046,
    0.0975,
    0.3000,
    0.4819,
    0.8020,
]


def scores(case: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of labelled and unlabelled items: what separates both densities best."""
    mean, share, n_labelled, n_unlabelled = CASES[case]
    rng = np.random.default_rng(case)
    is_positive = rng.random(n_unlabelled) < share
    labelled = rng.normal(mean, 1, n_labelled)
    unlabelled = rng.normal(np.where(is_positive, mean, 0.0), 1)
    return tuple(1 / (1 + np.exp(mean / 2 - x)) for x in (labelled, unlabelled))


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from dedpul import dedpul

    for case in range(len(CASES)):
        p, u = scores(case)
        found, _ = dedpul(p, np.stack([u, 1 - u], axis=1), None)
        print(f"{found:.4f}")
