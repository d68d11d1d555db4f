"""The report of a run: one page that needs nothing else.

`collect` reads the run folder into plain values, `render` makes the page of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.report.limits import Limits

if TYPE_CHECKING:
    from pipelines.report.model import Report

REPORT_FILE = "report.html"


def collect(
    run_folder: str, limits: Limits | None = None, counts: Mapping[str, int] | None = None
) -> "Report":
    """Read what the report of a finished run says, as plain values.

    Memory depends on the largest shard, not on their number. `counts` is what `counts_of` counted,
    where it did.
    """
    from pipelines.core.state import load_run
    from pipelines.decisions.counts import counts_of
    from pipelines.report.collector import collect_run

    run = load_run(run_folder)
    return collect_run(run, limits or Limits(), counts or counts_of(run))


def write_report(run_folder: str, limits: Limits | None = None) -> str:
    """Write (or write again) the report of a finished run; returns its URI.

    The page is the same for the same run, timings apart. The default limits keep that of 1 M items
    well under 20 MB.
    """
    return save(collect(run_folder, limits), run_folder, limits)


def save(report: "Report", run_folder: str, limits: Limits | None = None) -> str:
    """Write the page of what was collected, whole or not at all; returns its URI."""
    from pipelines.report.render import render
    from pipelines.storage.seal import PAGE, make_seal
    from pipelines.storage.store import open_store

    store = open_store(run_folder)
    page = render(report, limits).encode("utf-8")
    store.write_atomic(REPORT_FILE, page + make_seal(page, PAGE))
    local = store.local_path(REPORT_FILE)
    return f"{store.uri}/{REPORT_FILE}" if local is None else str(local)
