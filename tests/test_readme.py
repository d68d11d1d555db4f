"""The README is executed: its commands, its Python, and its table of what a run leaves."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
# No home folder that can be written, not even by root.
UNATTENDED = {
    **{k: v for k, v in os.environ.items() if k != "MPLCONFIGDIR"},
    "HOME": "/proc/nowhere",
    "PYTHONPATH": str(ROOT),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


COMMANDS = [
    shlex.split(line, comments=True)
    for block in blocks("sh")
    for line in block.splitlines()
    if line and not line.startswith("#")
]
MAKE = [command for command in COMMANDS if command[0] == "make"]
LABELOPS = [command for command in COMMANDS if command[0] == "labelops"]
BAGS, SPAM = ([c for c in LABELOPS if recipe in c] for recipe in ("proportions", "pu"))
"""Executed where the run is looked at, in `test_sample_bags` and `test_sample_spam`."""


def call(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=UNATTENDED, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} in {folder}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def follow(command: list[str], folder: Path) -> Path | None:
    """Give a command of the README; return the path of the report, if it makes one."""
    last = call([sys.executable, "-m", "flows.cli", *command[1:]], folder)
    if command[1] not in {"run", "resume", "report"}:
        return None
    report = folder / last.splitlines()[-1]
    assert report.is_file()
    return report


def reader_in(folder: Path) -> Path:
    """Where somebody follows the README: the sample data beside them, nothing else."""
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    return folder


def test_readme__shows_commands_of_make_and_labelops_only() -> None:
    assert len(MAKE) + len(LABELOPS) == len(COMMANDS)
    assert MAKE == [["make", "demo"], ["make", "test"]]


@pytest.mark.slow
def test_readme__its_commands_and_then_its_python_run(tmp_path: Path) -> None:
    reader = reader_in(tmp_path)
    assert [command[1:3] for command in (*BAGS, *SPAM)] == [["run", "proportions"], ["run", "pu"]]
    for command in LABELOPS:
        if command not in (*BAGS, *SPAM):
            follow(command, reader)
    for block in blocks("python"):
        call([sys.executable, "-c", block], reader)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_readme__make_demo_leaves_what_the_table_names_and_prints_the_report(
    tmp_path: Path,
) -> None:
    if not (ROOT / ".venv" / ".installed").exists():
        pytest.skip("the environment was not made by `make setup`, and a test should not change it")
    out = tmp_path / "demo"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(
        ["make", "demo", f"OUT={out}"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Path(done.stdout.splitlines()[-1]) == out / "report.html"
    assert (out / "report.html").stat().st_size > 100_000

    table = README.split("## What you get")[1].split("\n\n")[1]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.M)
    named = {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    assert len(named) >= 10
    missing = {name for name in named - {"quarantine/"} if not (out / name).exists()}
    assert not missing


def test_readme__its_recipe_is_accepted(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "shop.toml"
    path.write_text(text)
    recipe = load_recipe(str(path))
    assert recipe.data.columns == {"item_id": "sku", "label": "category"}
    assert recipe.data.max_bad_share == 0.02


def test_readme__links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]
