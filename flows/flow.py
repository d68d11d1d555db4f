"""The Prefect flow: one task a stage, around the very functions that a direct run calls.

Prefect sees stages, Dask sees shards. A task costs some 30 ms of the server's CPU, so there is
none for a shard; arguments are addresses and names, results stay in the run folder, and nothing is
cached or persisted here: the manifests in that folder are the truth, and a repeated run does only
what they lack.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.tasks import Task

from flows.artifacts import artifact_key, issues, rows_of, summary, tables
from flows.progress import Lines, both
from pipelines.core.graph import open_workers
from pipelines.core.lock import locked
from pipelines.core.state import load_run
from pipelines.errors import LabelopsError
from pipelines.recipe import load_recipe
from pipelines.run import Event, Listener, finish, open_run, run_stage, silent
from pipelines.storage.address import check_secrets

if TYPE_CHECKING:
    from pipelines.report.model import Report

STAGE_TIMEOUT_S = 86_400.0
"""A stage that takes longer than a day has been forgotten by whoever it waits for."""

RETRY_DELAY_S = 10.0

REFRESH_S = 2.0
"""Progress is reported to the server at most so often."""

PASSING = (OSError, CancelledError)
"""Causes that a minute may remove; the second is what a lost Dask scheduler leaves."""

listener: ContextVar[Listener] = ContextVar("listener", default=silent)
"""Who watches runs that are started in this process; a deployed flow has only its log."""


def is_passing(task: Task, run: TaskRun, state: State) -> bool:  # type: ignore[type-arg]
    """Say whether trying a failed stage again may help: storage and clusters come back.

    Data, recipes and mistakes of ours do not mend themselves.
    """
    try:
        state.result()
    except LabelopsError as err:
        return isinstance(err.__cause__, PASSING)
    except Exception as err:
        return isinstance(err, PASSING)
    return False


@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=1,
    retry_delay_seconds=RETRY_DELAY_S,
    retry_condition_fn=is_passing,
)
def do_stage(out: str, stage: str, cluster: str | None = None) -> None:
    """Bring one stage of a run to its end.

    Parameters
    ----------
    out
        URI of the run folder, which is locked by the flow.
    stage
        Name of the stage in the run's recipe.
    cluster
        Address of a Dask scheduler; None works in threads of this process.
    """
    with open_workers(cluster=cluster) as pool, progress_artifact(stage) as progress:
        run_stage(load_run(out), stage, pool, listen=both(_listener(), progress))


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False, retries=0)
def do_report(out: str) -> str:
    """Check that no item was lost, write the report, and show the same numbers as artifacts."""
    run = load_run(out)
    return finish(run, listen=_listener(), show=publish)


def run_recipe(
    data: str,
    out: str,
    recipe: str = "audit",
    settings: list[str] | None = None,
    workers: int | None = None,
    cluster: str | None = None,
    stage_timeout_s: float = STAGE_TIMEOUT_S,
) -> str:
    """Run a recipe on a data set, or go on where an earlier run was stopped.

    Parameters
    ----------
    data
        URI of the folder of shards.
    out
        URI of the run folder; in it, ``{date}`` and ``{time}`` stand for when the run was
        scheduled, in UTC, so that every run of a schedule has a folder of its own.
    recipe
        Name of a recipe that comes with labelops, or path of a TOML file.
    settings
        Changed settings, ``stage.key=value`` each.
    workers
        Number of local worker processes; None works in threads of the flow's process.
    cluster
        Address of a Dask scheduler instead, ``tcp://…`` or ``tls://…``.
    stage_timeout_s
        Longest time for one stage, in seconds.

    Returns
    -------
    Address of the report.
    """
    check_secrets([data, out, recipe, *(settings or ()), cluster], "parameters")
    scheduled = flow_run.scheduled_start_time
    chosen = load_recipe(recipe, settings or ())
    run = open_run(chosen, data=data, out=expand(out, scheduled), listen=_listener())
    with locked(run.store), open_workers(workers=workers, cluster=cluster) as pool:
        # Tasks get an address and connect by themselves, also to a cluster of this flow.
        stage = do_stage.with_options(timeout_seconds=stage_timeout_s)
        for entry in run.entries:
            stage(run.uri, entry.name, pool.address)
        return do_report.with_options(timeout_seconds=stage_timeout_s)(run.uri)


def expand(out: str, scheduled: datetime) -> str:
    """Put the time for which a run was scheduled into the name of its folder.

    Not the clock's: a run that is late, or tried again, goes on in the same folder.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> expand("runs/{date}/{time}", datetime(2025, 3, 1, 4, 5, tzinfo=UTC))
    'runs/2025-03-01/2025-03-01T040500Z'
    """
    moment = scheduled.astimezone(UTC)
    return out.replace("{date}", f"{moment:%Y-%m-%d}").replace(
        "{time}", f"{moment:%Y-%m-%dT%H%M%SZ}"
    )


audit = flow(
    name="audit",
    description="Audit a labelled data set: wrong labels, decisions, cleaned set, report.",
    persist_result=False,
    retries=0,
)(run_recipe)


def _listener() -> Listener:
    """Return who watches: whoever set `listener`, and the log of the run."""
    try:
        return both(listener.get(), Lines(get_run_logger().info, clock=False))
    except MissingContextError:
        return listener.get()


@contextlib.contextmanager
def progress_artifact(stage: str) -> Iterator[Listener]:
    """Keep a progress artifact of a stage up to date; gives the listener that does it.

    A stage that is over before anybody could look gets none: two requests would take longer. The
    share of the stage that is done is not known before its last step has begun: what is shown
    is the share of the step at work, with its name.
    """
    key = artifact_key("labelops-progress", stage)
    artifact: UUID | None = None
    shown, todo, done = time.monotonic(), 0.0, 0.0

    def tell(event: Event) -> None:
        nonlocal artifact, shown, todo, done
        if event.kind == "step":
            todo, done = float(max(event.n_items, 1)), 0.0
        elif event.kind == "shard":
            done += event.n_items
            if time.monotonic() - shown >= REFRESH_S:
                shown = time.monotonic()
                text = f"Stage {stage}, step {event.step}"
                artifact = _show(artifact, key, min(100.0 * done / max(todo, 1.0), 100.0), text)

    yield tell
    if artifact is not None:
        _show(artifact, key, 100.0, f"Stage {stage}: finished")


def _show(artifact: UUID | None, key: str, progress: float, description: str) -> UUID | None:
    """Make or update a progress artifact; a run does not fail because nobody can watch it."""
    try:
        if artifact is None:
            made = create_progress_artifact(progress, key=key, description=description)
            assert isinstance(made, UUID)
            return made
        update_progress_artifact(artifact, progress=progress, description=description)
    except Exception as err:
        logging.getLogger("labelops").warning("progress could not be reported: %s", err)
    return artifact


def publish(report: "Report", address: str) -> None:
    """Show the numbers of the report as Prefect artifacts, under keys that keep their history."""
    for name, table in tables(report).items():
        key = artifact_key("labelops", name)
        create_table_artifact(rows_of(table), key=key, description=table.caption)
    create_table_artifact(
        issues(report), key="labelops-top-issues", description="What to look at first"
    )
    create_markdown_artifact(summary(report), key="labelops-summary")
    link = address if "://" in address else Path(address).absolute().as_uri()
    create_link_artifact(link, link_text="Report", key="labelops-report")
