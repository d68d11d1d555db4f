"""How the command line ends: one message in plain words, and nothing after it."""

import errno
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.ending import end
from pipelines.errors import DataError, UnforeseenError
from tests.flows.conftest import ROOT, environ


@pytest.fixture(autouse=True)
def _hooks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    yield
    logging.disable(logging.NOTSET)


def caused(err: Exception, cause: Exception) -> Exception:
    err.__cause__ = cause
    return err


BUG = "This is a fault of labelops, not of the data"


@pytest.mark.parametrize(
    ("err", "said"),
    [
        (DataError("source: that"), "source: that"),
        # What a check of ours says stays what it says, whatever it was made from.
        (caused(DataError("source: that"), KeyError("x")), "source: that"),
        (caused(DataError("source: that"), pa.ArrowTypeError("x")), "source: that"),
        (caused(DataError("source: that"), ImportError("x")), "source: that"),
        (caused(UnforeseenError("stage 'a': x"), ValueError("x")), "stage 'a': x"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "no space left on device: /x/y. Finished shards are kept; make room and give the same "
            "command again",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x"),
            "permission denied: /x. Finished shards are kept; see to the rights, or choose another "
            "place and give the same command again",
        ),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "too many open files. Finished shards are kept; allow more open files (ulimit -n) and "
            "give the same command again",
        ),
        (
            TimeoutError("the store did not answer"),
            "the store did not answer. Finished shards are kept; fix the cause (path, space, "
            "permissions, network) and give the same command again",
        ),
        (
            MemoryError(),
            "memory or threads ran out (there is none left). Finished shards are kept; give the "
            "process more memory, or write smaller shards, and give the same command again",
        ),
        (
            RuntimeError("can't start new thread"),
            "memory or threads ran out (can't start new thread). Finished shards are kept; give "
            "the process more memory, or write smaller shards, and give the same command again",
        ),
        (
            ModuleNotFoundError("No module named 's3fs'", name="s3fs"),
            "package 's3fs' was expected to be installed and whole, got: No module named 's3fs'. "
            "Install it, or run 'make setup' again. Finished shards are kept",
        ),
    ],
)
def test_end__is_one_line_in_plain_words(
    capsys: pytest.CaptureFixture[str], err: Exception, said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        end(err)
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"labelops: error: {said}\n"


@pytest.mark.parametrize(
    "err",
    [
        KeyError("given"),
        ValueError("x"),
        ModuleNotFoundError("No module named 'pipelines.x'", name="pipelines.x"),
        caused(UnforeseenError("stage 'a': KeyError: 'given'"), KeyError("given")),
    ],
)
def test_end__of_a_fault_of_ours_has_the_trace_first(
    capsys: pytest.CaptureFixture[str], err: Exception
) -> None:
    with pytest.raises(SystemExit):
        end(err)
    *trace, last = capsys.readouterr().err.splitlines()
    assert BUG in last
    assert trace


def test_end__shows_what_a_terminal_would_obey_as_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        end(DataError("label '\x1b[2J\u202e\n\udcff\u200bé漢'"))
    said = capsys.readouterr().err
    assert said == "labelops: error: label '\\x1b[2J\\u202e\\n\\udcff\\u200bé漢'\n"


NOISY = """
import logging, sys, threading
from flows.ending import end
from pipelines.errors import DataError

class Writer:
    def __del__(self):
        raise OSError("later")

held = Writer()
threading.Timer(0.3, lambda: 1 / 0).start()
import atexit
atexit.register(lambda: logging.getLogger("distributed").error("closing"))
end(DataError("that"))
"""


def test_end__has_the_last_word() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY], cwd=ROOT, env=environ(), capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == "labelops: error: that\n"


def test_plan__of_names_that_the_output_has_no_sign_for_is_printed_all_the_same(
    tmp_path: Path,
) -> None:
    data = tmp_path / "é漢"
    data.mkdir()
    pq.write_table(pa.table({"item_id": ["a", "b"], "label": [0, 1]}), data / "s.parquet")
    (tmp_path / "r.toml").write_text('stages = ["source"]')
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "plan", str(tmp_path / "r.toml"), "--data", str(data),
         "--out", str(tmp_path / "out")],
        cwd=ROOT,
        env={**environ(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert r"\xe9\u6f22" in done.stdout
