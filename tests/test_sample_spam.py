"""The sample of reported spam is what its card says, and a run on it is compared with the truth."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.core.state import load_run
from tests.test_readme import SPAM, follow, reader_in

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sample_data"
CARD = (SAMPLE / "spam_reports.md").read_text()


def truth() -> tuple[np.ndarray, np.ndarray]:
    """Return which mails are spam, and which are reported."""
    mails, true = pq.read_table(SAMPLE / "spam_reports"), SAMPLE / "spam_reports_truth.parquet"
    table = pq.read_table(true)
    assert mails["item_id"].equals(table["item_id"])
    return np.array(table["is_spam"]), mails["positive"].is_valid().to_numpy()


def test_shards__are_as_the_card_says_and_small() -> None:
    shards = sorted((SAMPLE / "spam_reports").glob("*.parquet"))
    rows = [pq.ParquetFile(path).metadata.num_rows for path in shards]
    assert (len(rows), min(rows), max(rows), sum(rows)) == (5, 43, 1800, 4601)
    schema = pq.read_schema(shards[0])
    assert schema.names[0] == "item_id"
    assert schema.field("positive").type == pa.bool_()
    assert len(schema.names) == 1 + 57 + 1
    files = [*shards, SAMPLE / "spam_reports_truth.parquet"]
    assert sum(path.stat().st_size for path in files) <= 400_000


def test_numbers_of_the_card__are_those_of_the_files() -> None:
    is_spam, is_reported = truth()
    assert is_spam[is_reported].all()
    n, rest = int(is_spam.sum()), int((is_spam & ~is_reported).sum())
    said = [int(number.replace(" ", "")) for number in re.findall(r"\d \d{3}|\b\d{3}\b", CARD)]
    assert {n, rest, int(is_reported.sum()), int((~is_reported).sum())} <= set(said)
    assert round(rest / (~is_reported).sum(), 2) == 0.31


@pytest.mark.slow
def test_run__says_how_many_are_spam_and_which(tmp_path: Path) -> None:
    (command,) = SPAM
    report = follow(command, reader_in(tmp_path))
    assert report is not None
    run = load_run(str(report.parent))
    is_spam, is_reported = truth()
    prior = run.context("pu", run.layout()).own("scores")
    share = is_spam[~is_reported].mean()
    assert float(prior["low"]) <= share <= float(prior["high"])
    assert abs(float(prior["value"]) - share) < 0.03
    found = pa.concat_tables(pq.read_table(p) for p in sorted(report.parent.glob("pu/*.parquet")))
    p = np.array(found["p_positive"])
    # Trained on all labels, trees and a linear model have 0.986 out of sample.
    assert roc_auc_score(is_spam[~is_reported], p[~is_reported]) > 0.96
    listed = pq.read_table(f"{run.uri}/set_aside")["item_id"].to_pylist()
    of = dict(zip(found["item_id"].to_pylist(), is_spam, strict=True))
    assert np.mean([of[item] for item in listed]) > 0.9


def test_truth__is_named_by_no_stage() -> None:
    code = [p for name in ("labelops", "pipelines", "flows") for p in (ROOT / name).rglob("*.py")]
    assert not [str(path) for path in code if "spam_reports_tru" in path.read_text()]


def test_script__makes_the_same_bytes_again(tmp_path: Path) -> None:
    source = os.environ.get("SPAMBASE")
    if source is None:
        pytest.skip("SPAMBASE does not name the file of the original table")
    script = SAMPLE / "make_spam_reports.py"
    subprocess.run([sys.executable, script, source, "--out", tmp_path], check=True)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.parquet")}
    assert len(made) == 6
    assert made == {name: (SAMPLE / name).read_bytes() for name in made}


def test_script__refuses_other_files(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "spambase.tsv.gz").write_bytes(gzip.compress(b"0\ttarget\n1\t0\n"))
    script = SAMPLE / "make_spam_reports.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path / "spambase.tsv.gz"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "must hold the Spambase set" in done.stderr
