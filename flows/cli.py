"""The command line. It takes a recipe, the data and where to; all else is a setting of a stage.

Only the standard library and Typer are imported here: ``labelops --help`` must not wait for torch,
Dask or Prefect.
"""

import contextlib
import io
import signal
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from flows.ending import drop_output, end, say
from flows.stopping import stoppable

app = typer.Typer(
    name="labelops",
    help="Find and repair label errors in data sets that do not fit into memory.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain help is the same in a terminal, a pipe and a manual, and starts twice as fast.
    rich_markup_mode=None,
)

Recipe = Annotated[
    str, typer.Argument(help="Name of a recipe, such as 'audit', or path of a TOML file.")
]
Data = Annotated[str, typer.Option("--data", help="Folder or address of the Parquet shards.")]
Out = Annotated[str, typer.Option("--out", help="Folder or address for the results of the run.")]
Folder = Annotated[str, typer.Argument(help="Folder or address of an earlier run.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="Change a setting; may be repeated."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Number of local worker processes, instead of threads."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="ADDR", help="Address of a Dask scheduler, tcp://… or tls://…"
    ),
]
Prefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="Run as a Prefect flow or not; by default, if a Prefect API is configured. Without "
        "one, --prefect starts a server for this run.",
        show_default=False,
    ),
]


@app.command()
def run(
    recipe: Recipe,
    data: Data,
    out: Out,
    settings: Settings = None,
    workers: Workers = None,
    cluster: Cluster = None,
    prefect: Prefect = None,
) -> None:
    """Run a recipe on a data set, or resume that run.

    The same command given again does only what is missing. The last line printed is the path of
    the report.
    """
    _check_usage(settings, workers, cluster)
    _check_addresses({"--data": data, "--out": out})
    with _stoppable():
        from flows.start import start

        print(
            start(
                recipe,
                data=data,
                out=out,
                settings=settings or [],
                workers=workers,
                cluster=cluster,
                prefect=prefect,
            )
        )


PLAN_BUDGET = "plan budget"
"""Name of a command, joined before arguments are read: beside `plan`, which takes a recipe."""


@app.command()
def plan(recipe: Recipe, data: Data, out: Out, settings: Settings = None) -> None:
    """Show what a run would read, write and skip.

    Reads no data but the footers of the shards.
    """
    _check_usage(settings, None, None)
    _check_addresses({"--data": data, "--out": out})
    from pipelines.plan import plan as make
    from pipelines.recipe import load_recipe

    print(make(load_recipe(recipe, settings or ()), data=data, out=out).text())


@app.command(PLAN_BUDGET)
def plan_budget(
    pilot: Annotated[
        str,
        typer.Argument(help="Path of a TOML file with the runs of a pilot, prices and the budget."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say how many cheap labels and how many of an expert's to buy, from a pilot."""
    _check_addresses({"pilot": pilot})
    from pipelines.students.budget import plan_pilot

    planned = plan_pilot(pilot)
    if as_json:
        import json

        print(json.dumps(planned.to_dict(), indent=2))
    else:
        print(planned.text())


@app.command()
def resume(
    folder: Folder,
    workers: Workers = None,
    cluster: Cluster = None,
    prefect: Prefect = None,
) -> None:
    """Resume an unfinished run; its folder is all that is needed."""
    _check_usage(None, workers, cluster)
    _check_addresses({"folder": folder})
    with _stoppable():
        from flows.start import again

        print(again(folder, workers=workers, cluster=cluster, prefect=prefect))


@app.command()
def report(folder: Folder) -> None:
    """Verify a finished run and rewrite its report."""
    _check_addresses({"folder": folder})
    from pipelines.run import report_again

    print(report_again(folder))


@app.command()
def verify(
    folder: Folder,
    recompute: Annotated[
        int | None,
        typer.Option(
            "--recompute",
            min=1,
            metavar="N",
            help="Also make N stored soft labels again, drawn at random, and compare.",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            min=0.0,
            help="Up to which difference of a probability these count as the same; 0: to the last "
            "bit. Networks on a GPU differ by some thousandths.",
        ),
    ] = 0.0,
) -> None:
    """Check that all files of a run are intact and no item is missing.

    Says what is damaged and how to make it again; the exit status is 1 then.
    """
    _check_addresses({"folder": folder})
    from pipelines.verify import verify_run

    verified = verify_run(folder)
    print(verified.text())
    is_good = not verified.damage
    if recompute is not None:
        from pipelines.soft.recompute import recompute as again

        found = again(folder, recompute, tolerance=tolerance)
        print(found.text())
        is_good &= found.is_same
    if not is_good:
        raise typer.Exit(1)


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Name of a torchvision classifier, timm:NAME, or hf:FOLDER (or hf:NAME) of a "
            "model of pictures or texts of Hugging Face."
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Path of the new file, FILE.pt2.")],
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="File with weights of a torchvision or timm model; without it, those that the "
            "library recommends are fetched.",
        ),
    ] = None,
    side: Annotated[
        int,
        typer.Option(
            "--side", min=0, help="Side of the pictures in pixels; 0: as the model was trained."
        ),
    ] = 0,
) -> None:
    """Write a model as a program that embeds pictures or texts, for infer.embedder.

    A run needs that one file, and neither the model's library nor a network.
    """
    from pipelines.media.exporting import export_model

    print(export_model(model, out, weights=weights, side=side))


@app.command()
def stages() -> None:
    """List all stages."""
    from pipelines.registry import STAGES, load_stage

    width = max(map(len, STAGES))
    for name in STAGES:
        print(f"{name:<{width}}  {load_stage(name).doc}")


@app.command()
def schema(
    stage: Annotated[
        str | None,
        typer.Argument(help="Name of a stage; without one, the schema of recipes is printed."),
    ] = None,
) -> None:
    """Print the JSON Schema of the settings of a stage, or of a recipe."""
    import json

    from pipelines.recipe import recipe_schema, stage_schema

    print(json.dumps(recipe_schema() if stage is None else stage_schema(stage), indent=2))


def _check_usage(settings: list[str] | None, workers: int | None, cluster: str | None) -> None:
    for setting in settings or ():
        target, equals, _ = setting.partition("=")
        if not equals or "." not in target.strip("."):
            raise typer.BadParameter(
                f"stage.key=value was expected, got {setting!r}", param_hint="--set"
            )
    if workers is not None and cluster is not None:
        raise typer.BadParameter(
            "give either --workers or --cluster, not both",
            param_hint="--workers",
        )
    if cluster is not None:
        from pipelines.core.graph import check_address
        from pipelines.errors import RunError

        try:
            check_address(cluster)
        except RunError as err:
            text = str(err).removeprefix("cluster: ")
            raise typer.BadParameter(text, param_hint="--cluster") from err


def _check_addresses(addresses: dict[str, str]) -> None:
    from pipelines.errors import AddressError
    from pipelines.storage.address import normalize

    for option, address in addresses.items():
        try:
            normalize(address, option)
        except AddressError as err:
            said = str(err).removeprefix(f"{option}: ")
            raise typer.BadParameter(said, param_hint=option) from err


def _refuse_secrets(arguments: list[str]) -> None:
    """Refuse passwords anywhere on the command line, before anything can repeat them."""
    from pipelines.errors import AddressError
    from pipelines.storage.address import check_secrets

    before = ""
    for argument in arguments:
        option = argument.partition("=")[0] if argument.startswith("--") else before
        try:
            check_secrets(argument, option if option.startswith("--") else "argument")
        except AddressError as err:
            print(f"Error: {err}", file=sys.stderr, flush=True)
            sys.exit(2)
        before = argument


def _joined(arguments: list[str]) -> list[str]:
    """Join the words of the command that has two, which `plan` would take for a recipe."""
    both = " ".join(arguments[:2])
    return [both, *arguments[2:]] if both == PLAN_BUDGET else arguments


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Say how a run that was stopped goes on."""
    try:
        with stoppable():
            yield
    except KeyboardInterrupt:
        say("stopped. Finished shards are kept; the same command goes on from there")
        raise typer.Exit(128 + signal.SIGINT) from None
    except SystemExit as err:
        if err.code == 128 + signal.SIGTERM:
            say("terminated. Finished shards are kept; the same command goes on from there")
        raise


def main() -> None:
    """Run the command line; every way to fail ends with a message, none with a bare trace."""
    # Names of files and labels may hold what an output in another encoding has no sign for.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    _refuse_secrets(sys.argv[1:])
    try:
        app(_joined(sys.argv[1:]), prog_name="labelops")
    except BrokenPipeError:
        drop_output()
    except Exception as err:
        end(err)


if __name__ == "__main__":
    main()
