"""The form of logs of what is said or done about labels: one row a label, or a class of an item."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

EVIDENCE_FLAGS = ("is_label_issue", "is_outlier", "is_duplicate_conflict")


def log_schema(item_id: pa.DataType, label: pa.DataType) -> pa.Schema:
    """Return the columns of the log.

    `label_id` is null where items have one label each; `time` is null in rows that a stage wrote:
    when that was stands in the run's timings, and equal runs have equal logs.
    """
    evidence = pa.struct(
        [
            ("p_given", pa.float32()),
            ("p_believed", pa.float32()),
            ("believed", label),
            ("label_score", pa.float32()),
            *((name, pa.bool_()) for name in EVIDENCE_FLAGS),
        ]
    )
    return pa.schema(
        [
            ("item_id", item_id),
            ("label_id", pa.int32()),
            ("before", label),
            ("after", label),
            ("action", pa.string()),
            ("p_correct", pa.float32()),
            ("rule", pa.string()),
            ("evidence", evidence),
            ("actor", pa.string()),
            ("run", pa.string()),
            ("time", pa.timestamp("us", "UTC")),
        ]
    )


def log_rows(
    *,
    item_id: pa.Array,
    before: pa.Array,
    after: pa.Array,
    action: pa.Array | np.ndarray,
    p_correct: pa.Array | np.ndarray,
    rule: pa.Array | np.ndarray,
    evidence: Mapping[str, pa.Array | np.ndarray],
    actor: pa.Array | np.ndarray,
    run: str,
    label_id: pa.Array | np.ndarray,
) -> pa.Table:
    """Return rows of the log, one for each item (or label of an item) given.

    Parameters
    ----------
    item_id
        N ids; all others are of the same length.
    before, after
        Labels; `after` is null for items set aside.
    action
        In the words of `labelops.decisions.WORDS`.
    p_correct
        Probability that `after` is right; that `before` is, for items set aside.
    evidence
        What spoke for it; flags that nobody looked for may be missing.
    actor
        Which stage, or "reviewer".
    label_id
        Class ids, where an item has several labels and each is decided about; else null.
    """
    n = len(item_id)
    parts = {
        **dict(evidence),
        **{name: pa.nulls(n, pa.bool_()) for name in EVIDENCE_FLAGS if name not in evidence},
    }
    names = [field.name for field in log_schema(item_id.type, before.type).field("evidence").type]
    return pa.table(
        {
            "item_id": item_id,
            "label_id": label_id,
            "before": before,
            "after": after,
            "action": action,
            "p_correct": p_correct,
            "rule": rule,
            "evidence": pa.StructArray.from_arrays([pa.array(parts[k]) for k in names], names),
            "actor": actor,
            "run": pa.array([run] * n, pa.string()),
            "time": pa.nulls(n, pa.timestamp("us", "UTC")),
        }
    )
