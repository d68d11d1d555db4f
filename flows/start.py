"""Starting a run: directly in this process, or as the Prefect flow; the same stages either way."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from flows.progress import watch
from flows.proxies import past_proxies
from flows.server import (
    EmbeddedServer,
    check_api,
    configured_api,
    default_template,
    environment,
    flush,
    quiet,
)
from flows.stopping import heed
from pipelines.errors import RunError
from pipelines.storage.address import check_secrets, join


def start(
    recipe: str,
    *,
    data: str,
    out: str,
    settings: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    prefect: bool | None = None,
) -> str:
    """Run a recipe; see `pipelines.run.run`.

    Parameters
    ----------
    recipe
        Name or path of a recipe.
    data, out
        URIs of the source and of the run folder.
    settings
        Changed settings, ``stage.key=value`` each.
    workers
        Number of local worker processes; None works in threads.
    cluster
        Address of a Dask scheduler instead.
    prefect
        Whether to run as a Prefect flow; None does so if an API is configured.

    Returns
    -------
    Address of the report.
    """
    refuse_unsafe()
    # Before Prefect, which keeps the parameters of every run.
    named = {"data": data, "out": out, "recipe": recipe, "cluster": cluster}
    for name, value in named.items():
        check_secrets(value, name)
    check_secrets(list(settings), "settings")
    if prefect is None:
        prefect = configured_api() is not None
    if prefect:
        with prefect_api(), watch() as listen:
            from flows.flow import listener

            token = listener.set(heed(listen))
            try:
                return _as_flow(recipe, data, out, list(settings), workers, cluster)
            finally:
                listener.reset(token)
    from pipelines.recipe import load_recipe
    from pipelines.run import run

    chosen = load_recipe(recipe, settings)
    with watch() as shown:
        listen = heed(shown)
        return run(chosen, data=data, out=out, workers=workers, cluster=cluster, listen=listen)


def again(
    folder: str,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    prefect: bool | None = None,
) -> str:
    """Go on with the run in a folder, from what that folder says alone; see `start`."""
    from pipelines.core.state import RECIPE_FILE, keep_recipe, load_run
    from pipelines.run import data_of

    run = load_run(folder)
    # The run may have been stopped before it had written it; `run.json` holds it, too.
    keep_recipe(run)
    return start(
        join(run.uri, RECIPE_FILE),
        data=data_of(run),
        out=run.uri,
        workers=workers,
        cluster=cluster,
        prefect=prefect,
    )


def refuse_unsafe() -> None:
    """Refuse an environment in which opening a file of weights can run code.

    Raises
    ------
    RunError
        If torch was told to load files without its safe mode.
    """
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if os.environ.get(name, "").lower() in {"1", "y", "yes", "true"}:
        raise RunError(
            f"labelops: weights are opened in torch's safe mode only, but {name} is set and would "
            "let a weights file run code. Unset it"
        )


@contextlib.contextmanager
def prefect_api() -> Iterator[None]:
    """Provide a Prefect API for a while: the configured one, or an embedded server.

    Raises
    ------
    RunError
        If the configured API does not answer, or the server does not come up.
    """
    url = configured_api()
    with contextlib.ExitStack() as stack:
        server = None
        settings: dict[str, str | None] = {**quiet(os.environ)}
        stack.enter_context(environment(past_proxies(url, os.environ)))
        if url is None:
            print("labelops: starting a Prefect server for this run …", file=sys.stderr, flush=True)
            server = stack.enter_context(EmbeddedServer(template=default_template()))
            settings |= server.settings
        else:
            check_api(url)
        stale = "prefect" in sys.modules
        if stale:
            # Imported before, under other settings; it shall have those again when we are done.
            from prefect.context import refresh_global_settings_context

            stack.callback(refresh_global_settings_context)
        stack.enter_context(environment(settings))
        if stale:
            refresh_global_settings_context()
        # A home folder that cannot be written does without: nothing of a run is kept there.
        warnings.filterwarnings("ignore", "Failed to create the Prefect home directory")
        # While the server starts in its own process.
        import flows.flow  # noqa: F401

        if server is not None:
            server.wait()
        stack.callback(flush)
        yield


def _as_flow(
    recipe: str,
    data: str,
    out: str,
    settings: list[str],
    workers: int | None,
    cluster: str | None,
) -> str:
    """Call the flow; what goes wrong with Prefect itself becomes an error with a remedy."""
    import httpx
    from prefect.exceptions import PrefectException, TerminationSignal

    from flows.flow import STAGE_TIMEOUT_S, audit
    from pipelines.recipe import load_recipe

    # The flow is called what its recipe is; a wrong recipe is refused before there is a flow run.
    named = audit.with_options(name=load_recipe(recipe, settings).name)
    try:
        return str(
            named(data, out, recipe=recipe, settings=settings, workers=workers, cluster=cluster)
        )
    except TerminationSignal as err:
        raise SystemExit(128 + err.signal) from err
    except TimeoutError as err:
        raise RunError(
            f"run: every stage was expected to end within {STAGE_TIMEOUT_S:.0f} s; one did not "
            f"({err}). Finished shards are kept; the same command goes on from there"
        ) from err
    except (httpx.HTTPError, PrefectException) as err:
        raise RunError(
            f"Prefect API: answers were expected for the whole of the run, got "
            f"{type(err).__name__}: {err}. Finished shards are kept; give the same command again "
            "when the server is back, or with --no-prefect"
        ) from err
