"""The command line: what it takes, how fast it answers, how it fails."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

import pipelines.run
from flows import cli
from pipelines.recipe import parse_recipe
from pipelines.registry import STAGES
from tests.datasets import blobs, vectors, write_shards
from tests.flows.conftest import ROOT, Command, environ

HEAVY = ("torch", "dask", "distributed", "prefect", "pandas", "pyarrow", "numpy", "rich", "numba")

OPTIONS = {
    "run": {"recipe", "--data", "--out", "--set", "--workers", "--cluster", "--prefect"},
    "plan": {"recipe", "--data", "--out", "--set"},
    "plan budget": {"pilot", "--json"},
    "resume": {"folder", "--workers", "--cluster", "--prefect"},
    "report": {"folder"},
    "verify": {"folder", "--recompute", "--tolerance"},
    "export": {"model", "--out", "--weights", "--side"},
    "stages": set(),
    "schema": {"stage"},
}
"""The whole command line. It does not grow with the stages: what a stage needs is a setting."""


def test_commands__take_what_the_list_says_and_nothing_else() -> None:
    group = typer.main.get_command(cli.app)
    found = {
        name: {parameter.opts[0] for parameter in command.params}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    assert found == OPTIONS


def test_plan__of_a_budget_stands_beside_that_of_a_recipe(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    pilot = str(ROOT / "sample_data" / "pilot.toml")
    said, found = inside("plan", "budget", pilot), inside("plan", "budget", pilot, "--json")
    assert "cheap labels and" in said.stdout.splitlines()[1]
    assert json.loads(found.stdout)["budget"] == 100
    help_of = [
        inside("plan", *words, "--help").stdout.splitlines()[0] for words in ((), ["budget"])
    ]
    assert help_of == [
        "Usage: labelops plan [OPTIONS] {recipe}",
        "Usage: labelops plan budget [OPTIONS] {pilot}",
    ]
    # A recipe in a file of that name still has a plan.
    text = nap_recipe.read_text()
    (tmp_path / "budget.toml").write_text(text)
    planned = inside("plan", tmp_path / "budget.toml", "--data", shards, "--out", tmp_path / "run")
    assert planned.stdout.startswith("recipe budget on ")
    refused = inside("plan", "budget", tmp_path / "budget.toml")
    assert refused.returncode == 1
    assert "pilot has no setting 'stages'" in refused.stderr


def test_help__imports_nothing_heavy() -> None:
    script = (
        "import sys; from flows.cli import main; sys.argv = ['labelops', '--help']\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environ(), capture_output=True, text=True
    )
    assert done.stderr.strip() == "[]"
    assert "Usage: labelops" in done.stdout


def test_help__answers_within_half_a_second(labelops: Command) -> None:
    # The best of some: the budget is about the program, not about what else the machine does.
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        assert labelops("--help", program=None).returncode == 0
        seconds.append(time.perf_counter() - began)
    assert min(seconds) <= 0.5


def test_stages__are_listed_with_a_line_each(inside: Command) -> None:
    done = inside("stages")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(STAGES)
    assert all(len(line.split()) > 2 for line in lines)


def test_schema__is_json_for_a_stage_and_for_recipes(inside: Command) -> None:
    assert json.loads(inside("schema", "source").stdout)["additionalProperties"] is False
    assert json.loads(inside("schema").stdout)["required"] == ["stages"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "audit", "--data", "x"],
        ["run", "audit", "--data", "x", "--out", "y", "--set", "toy"],
        ["run", "audit", "--data", "x", "--out", "y", "--workers", "0"],
        ["run", "audit", "--data", "x", "--out", "y", "--cluster", "localhost:8786"],
        ["run", "audit", "--data", "x", "--out", "y", "--workers", "2", "--cluster", "tcp://a:1"],
        ["run", "audit", "--data", "x", "--out", "y", "--no-such-option"],
        ["no-such-command"],
    ],
)
def test_usage__errors_end_with_code_2(inside: Command, arguments: list[str]) -> None:
    done = inside(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error" in done.stderr
    assert "Traceback" not in done.stderr


def test_run__prints_the_path_of_the_report_last_and_one_line_a_shard(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    done = inside("run", nap_recipe, "--data", shards, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    report = Path(done.stdout.splitlines()[-1])
    assert report == tmp_path / "run" / "report.html"
    assert report.is_file()
    lines = [line for line in done.stderr.splitlines() if "nap/nap" in line]
    assert sorted(line.split()[2] for line in lines) == [f"s{i}.parquet" for i in range(4)]
    assert "\x1b" not in done.stderr + done.stdout


def test_run__again_does_only_what_is_missing(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    command = ("run", nap_recipe, "--data", shards, "--out", tmp_path / "run")
    assert inside(*command).returncode == 0
    part = tmp_path / "run" / "nap" / "part-00000.parquet"
    before = part.stat().st_mtime_ns
    done = inside(*command)
    assert done.returncode == 0
    assert part.stat().st_mtime_ns == before
    assert "nap: kept" in done.stderr


def test_resume__needs_the_folder_only(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    setting = ("--set", "nap.fail=io")
    assert inside("run", nap_recipe, "--data", shards, "--out", out, *setting).returncode == 1
    # What failed was the machine, in this play because a setting said so; the recipe in the
    # folder is all that `resume` reads.
    recipe = out / "recipe.toml"
    assert 'fail = "io"' in recipe.read_text()
    done = inside("resume", out)
    assert done.returncode == 1
    assert "Input/output error" in done.stderr


def test_report__is_written_again_from_the_folder(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    done = inside("run", nap_recipe, "--data", shards, "--out", tmp_path / "run")
    report = Path(done.stdout.strip())
    report.unlink()
    again = inside("report", tmp_path / "run")
    assert again.returncode == 0, again.stderr
    assert again.stdout.strip() == str(report)
    assert report.is_file()


def test_verify__makes_soft_labels_again_and_fails_where_they_are_others(
    inside: Command, tmp_path: Path
) -> None:
    table = blobs(40).drop_columns(["features"])
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 40).astype(np.float32)
    data = write_shards(tmp_path / "data", table.append_column("pred_probs", vectors(probs)), [40])
    recipe = parse_recipe('stages = ["source", "infer", "confident", "teach"]', name="test")
    pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "run"))
    done = inside("verify", tmp_path / "run", "--recompute", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 soft labels made again: 0 stored otherwise" in done.stdout
    path = tmp_path / "run" / "soft_labels" / "part-00000.parquet"
    pq.write_table(pq.read_table(path).take(list(range(40))[::-1]), path)
    done = inside("verify", tmp_path / "run", "--recompute", "10")
    assert done.returncode == 1
    assert "soft_labels: not as the teacher says" in done.stdout


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("data", r"stage 'nap': sleep was expected, got noise\. Close the window"),
        (
            "io",
            r"stage 'nap': .*\[Errno 5\] Input/output error: 'part-00000\.parquet'\. Finished "
            r"shards are kept; give the same command again when the storage answers",
        ),
        (
            "bug",
            r"stage 'nap', step 'nap', shard \d \(s\d\.parquet\): KeyError: 'pillow'\. This is a "
            r"fault of labelops, not of the data: please report it with the lines above\. "
            r"Finished shards are kept",
        ),
    ],
)
def test_failure__ends_with_a_message_and_code_1(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path, fail: str, message: str
) -> None:
    done = inside(
        "run", nap_recipe, "--data", shards, "--out", tmp_path / "run", "--set", f"nap.fail={fail}"
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(f"labelops: error: {message}", done.stderr.splitlines()[-1])
    assert ("Traceback" in done.stderr) == (fail == "bug")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["audit", "--data", "no/such/folder"],
            "labelops: error: source: a folder of Parquet shards was expected at "
            f"{ROOT}/no/such/folder, there is none. Check the path",
        ),
        (
            ["audits", "--data", "x"],
            "labelops: error: recipe: a name or the path of a .toml file was expected, got "
            "'audits'; did you mean 'audit'? Known: ['audit', 'full', 'multilabel', 'partial', "
            "'proportions', 'pu', 'relabel']",
        ),
    ],
)
def test_run__says_what_is_wrong_with_its_arguments(
    inside: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = inside("run", *arguments, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [message]
    assert not (tmp_path / "run").exists()


def test_run__refuses_an_environment_in_which_weights_can_run_code(
    inside: Command, shards: Path, tmp_path: Path
) -> None:
    done = inside(
        "run", "audit", "--data", shards, "--out", tmp_path / "run",
        TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1",
    )  # fmt: skip
    assert done.returncode == 1
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set" in done.stderr
    assert not (tmp_path / "run").exists()


def test_run__goes_on_under_a_higher_limit_of_bad_rows(inside: Command, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    labels = ["a", "b"] * 10 + [None] * 2
    pq.write_table(pa.table({"item_id": range(22), "label": labels}), data / "s.parquet")
    recipe = tmp_path / "r.toml"
    recipe.write_text('stages = ["source", "nap"]')
    command = ("run", recipe, "--data", data, "--out", out)
    done = inside(*command)
    assert done.returncode == 1
    assert "at most 1.00% of 22 items may be unusable (data.max_bad_share), got 2" in done.stderr
    assert inside("resume", out).returncode == 1
    (out / "recipe.toml").unlink()
    done = inside(*command, "--set", "data.max_bad_share=0.1")
    assert done.returncode == 0, done.stderr
    # The folder alone says under which limit it was finished.
    assert "max_bad_share = 0.1" in (out / "recipe.toml").read_text()
    assert inside("resume", out).returncode == 0


def test_plan__says_what_would_be_done_and_writes_nothing(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = inside("plan", nap_recipe, "--data", shards, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "300 items in 4 shards" in done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("  run")] == [
        ["run", "source"],
        ["run", "nap"],
    ]
    assert not out.exists()
    assert inside("run", nap_recipe, "--data", shards, "--out", out).returncode == 0
    done = inside("plan", nap_recipe, "--data", shards, "--out", out)
    assert [line.split()[0] for line in done.stdout.splitlines()[-2:]] == ["keep", "keep"]
