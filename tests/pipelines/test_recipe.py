"""Recipes: read, changed, refused with a hint, and the same again after a round trip."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, Field

from pipelines import recipe as module
from pipelines.errors import RecipeError
from pipelines.recipe import (
    Data,
    load_recipe,
    parse_recipe,
    parse_value,
    recipe_names,
    recipe_schema,
    stage_schema,
)
from pipelines.registry import STAGES, load_stage


class Inner(BaseModel, frozen=True, extra="forbid"):
    depth: int = 3


class Toy(BaseModel, frozen=True, extra="forbid"):
    filter_by: str = "both"
    share: float = Field(default=0.5, ge=0, le=1)
    limit: int | None = None
    names: tuple[str, ...] = ()
    inner: Inner = Inner()
    maybe: Inner | None = None


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two stages with settings that stay as they are, whatever becomes of the real ones."""
    stages = {
        name: SimpleNamespace(config=config, files=lambda config: [], folders=(), decides=False)
        for name, config in (("toy", Toy), ("plain", Inner))
    }
    monkeypatch.setattr(module, "STAGES", dict.fromkeys(stages, ""))
    monkeypatch.setattr(module, "load_stage", lambda name: stages[name.split("@")[0]])


TOY = 'name = "try"\nstages = ["toy", "plain", "toy@2"]\n'


@pytest.mark.usefixtures("toy")
def test_recipe__settings_come_from_the_table_of_their_stage() -> None:
    found = parse_recipe(
        TOY + '[data]\nclasses = ["no", "yes"]\n[toy]\nshare = 0.25\n["toy@2"]\nlimit = 7\n',
        name="file",
    )
    assert found.name == "try"
    assert found.stages == ("toy", "plain", "toy@2")
    assert found.data.classes == ("no", "yes")
    assert found.settings("toy") == Toy(share=0.25)
    # A later round has the settings of the first where it says nothing.
    assert found.settings("toy@2") == Toy(share=0.25, limit=7)
    assert found.settings("plain") == Inner()


@pytest.mark.usefixtures("toy")
def test_recipe__is_named_after_its_file_unless_it_says_so_itself() -> None:
    assert parse_recipe('stages = ["toy"]', name="file").name == "file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            TOY + "[toy]\nfilterby = 1\n",
            "stage 'toy' has no setting 'filterby'; did you mean 'filter_by'? Known: "
            "['filter_by', 'inner', 'limit', 'maybe', 'names', 'share']; in the recipe",
        ),
        (
            TOY + "[toy]\nxyz = 1\n",
            "stage 'toy' has no setting 'xyz'. Known: "
            "['filter_by', 'inner', 'limit', 'maybe', 'names', 'share']; in the recipe",
        ),
        (
            TOY + "[toy.maybe]\ndeph = 1\n",
            "stage 'toy' has no setting 'deph' in 'maybe'; did you mean 'depth'? Known: "
            "['depth']; in the recipe",
        ),
        (
            TOY + "[toy]\nshare = 1.5\n",
            "stage 'toy': setting 'share': input should be less than or equal to 1, got 1.5; "
            "in the recipe",
        ),
        (
            TOY + "toy = 3\n",
            "stage 'toy': a table of settings was expected, got 3; in the recipe",
        ),
        (
            TOY + "[plane]\ndepth = 1\n",
            "recipe: 'plane' is no stage of this recipe; did you mean 'plain'? Known: "
            "['name', 'stages', 'data', 'toy', 'plain', 'toy@2']; in the recipe",
        ),
        (
            TOY + "[data]\nmax_bad_shares = 1\n",
            "data has no setting 'max_bad_shares'; did you mean 'max_bad_share'? Known: "
            "['absent_classes', 'absent_labels', 'classes', 'columns', 'features', "
            "'max_bad_share', 'opinions', 'splits']; in the recipe",
        ),
        (
            'stages = ["toy", "toy"]',
            "recipe: stage 'toy' is listed 2 times; in the recipe. List the second as 'toy@2', "
            "with a table of its own",
        ),
        (
            'stages = ["toy@x"]',
            "recipe: a stage is listed as name or name@2, got 'toy@x'; in the recipe",
        ),
        (
            'name = "x"',
            "recipe: 'stages' must be a list of names of stages in their order, got None; in the "
            "recipe. Known: ['toy', 'plain']",
        ),
        (
            "stages = []",
            "recipe: 'stages' must be a list of names of stages in their order, got []; in the "
            "recipe. Known: ['toy', 'plain']",
        ),
        (
            'name = 3\nstages = ["toy"]',
            "recipe: 'name' must be text, got 3; in the recipe",
        ),
    ],
)
@pytest.mark.usefixtures("toy")
def test_recipe__mistakes_are_named_with_their_place_and_the_nearest_key(
    text: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, name="file")
    assert str(caught.value) == message


def test_recipe__broken_toml_is_refused_with_line_and_column() -> None:
    with pytest.raises(RecipeError, match=r"TOML was expected in x\.toml, got: .*line 1"):
        parse_recipe("stages = = 1", name="x", where="x.toml")


def test_recipe__an_unknown_stage_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="got 'sauce'; did you mean 'source'"):
        parse_recipe('stages = ["sauce"]', name="x")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("override", "stage", "expected"),
    [
        ("toy.share=0.75", "toy", Toy(share=0.75)),
        ("toy.share = 1", "toy", Toy(share=1)),
        ('toy.names=["a", "b"]', "toy", Toy(names=("a", "b"))),
        ("toy.filter_by=prune_by_class", "toy", Toy(filter_by="prune_by_class")),
        ('toy.filter_by="3"', "toy", Toy(filter_by="3")),
        ("toy.inner.depth=9", "toy", Toy(inner=Inner(depth=9))),
        ("toy@2.limit=4", "toy@2", Toy(limit=4)),
        ("toy.filter_by=a=b", "toy", Toy(filter_by="a=b")),
    ],
)
def test_override__changes_one_setting(override: str, stage: str, expected: Toy) -> None:
    assert parse_recipe(TOY, name="x", overrides=[override]).settings(stage) == expected


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("override", ["toy", "toy=1", "toy.=1", ".share=1", "toy.share", "=", ""])
def test_override__without_stage_key_and_value_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match=r"--set: stage\.key=value was expected, got"):
        parse_recipe(TOY, name="x", overrides=[override])


@pytest.mark.usefixtures("toy")
def test_override__of_an_unknown_key_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="no setting 'shar'; did you mean 'share'"):
        parse_recipe(TOY, name="x", overrides=["toy.shar=1"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("1.5", 1.5),
        ("true", True),
        ('"true"', "true"),
        ("True", "True"),
        ("[1, 2]", [1, 2]),
        ("a b", "a b"),
        ("", ""),
        ("1\nother = 2", "1\nother = 2"),
        ("1 # one", 1),
    ],
)
def test_value__is_read_as_toml_and_otherwise_as_text(text: str, value: object) -> None:
    assert parse_value(text) == value


@pytest.mark.usefixtures("toy")
def test_resolved_recipe__writes_out_every_default_and_reads_back_equal() -> None:
    first = parse_recipe(TOY + '[data.columns]\nlabel = "y"\n[toy.inner]\ndepth = 1\n', name="x")
    text = first.to_toml()
    tables = tomllib.loads(text)
    # The oracle is TOML itself: what another program would read from the file.
    assert tables["toy"] == {"filter_by": "both", "share": 0.5, "names": [], "inner": {"depth": 1}}
    assert tables["data"]["columns"] == {"label": "y"}
    assert parse_recipe(text, name="other") == first
    assert parse_recipe(text, name="other").to_toml() == text


def test_recipe__comes_from_a_file_by_path_and_by_uri(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('stages = ["source"]')
    for name in (str(path), f"file://{path}"):
        assert load_recipe(name).name == "mine"
        assert load_recipe(name).stages == ("source",)


def test_recipe__a_missing_file_or_name_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"expected at .*none\.toml, got: no such file"):
        load_recipe(str(tmp_path / "none.toml"))
    with pytest.raises(RecipeError, match="got 'audi'; did you mean 'audit'"):
        load_recipe("audi")


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_of_the_project__are_valid_and_survive_the_round_trip(name: str) -> None:
    found = load_recipe(name)
    assert parse_recipe(found.to_toml(), name=name) == found
    assert found.name == name


def test_audit__is_addressable_by_name_and_in_the_order_of_the_design() -> None:
    expected = ("source", "infer", "confident", "proportions", "neighbours", "decide", "dataset")
    assert load_recipe("audit").stages == expected


@pytest.mark.parametrize("name", list(STAGES))
def test_config__survives_toml(name: str) -> None:
    found = parse_recipe(f'stages = ["{name}"]', name="x")
    again = parse_recipe(found.to_toml(), name="x")
    assert again.settings(name) == load_stage(name).config()
    assert again == found


@pytest.mark.parametrize("name", list(STAGES))
def test_config__is_frozen_and_refuses_unknown_keys(name: str) -> None:
    config = load_stage(name).config
    assert config.model_config.get("frozen") is True
    with pytest.raises(RecipeError, match=f"stage '{name}' has no setting 'no_such_key'"):
        parse_recipe(f'stages = ["{name}"]\n[{name}]\nno_such_key = 1', name="x")


def test_data__the_limit_of_bad_rows_is_no_part_of_what_results_depend_on() -> None:
    strict = parse_recipe('stages = ["source"]\n[data]\nmax_bad_share = 0.0', name="x")
    loose = parse_recipe('stages = ["source"]\n[data]\nmax_bad_share = 0.5', name="x")
    assert strict.data != loose.data
    assert strict.data_dict() == loose.data_dict()
    assert set(strict.data_dict()) == set(Data.model_fields) - {"max_bad_share"}


def test_schema__every_reference_leads_somewhere() -> None:
    schema = recipe_schema()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        if isinstance(node, list):
            return [ref for value in node for ref in references(value)]
        return []

    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]
    assert set(STAGES) < set(schema["properties"])
    for name in STAGES:
        assert set(stage_schema(name).get("properties", {})) == set(
            load_stage(name).config.model_fields
        )


# -- what no recipe says ---------------------------------------------------------------------------

MANY = "9" * 5000


@pytest.fixture
def _named_toy(toy: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toys, with the real answer to a stage that is not registered."""
    fake = module.load_stage

    def load(name: str) -> object:
        return fake(name) if name.split("@")[0] in ("toy", "plain") else load_stage(name)

    monkeypatch.setattr(module, "load_stage", load)


@pytest.mark.usefixtures("_named_toy")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"x = {MANY}", "TOML was expected in the recipe, got: Exceeds the limit (4300 digits)"),
        (f"x = 0x{MANY}", "whole numbers of 64 bits were expected, got a value too large to show"),
        (f"x = [[{2**63}]]", "whole numbers of 64 bits were expected, got 9223372036854775808; in"),
        ("x = { y = nan }", "finite numbers were expected, got nan; in the recipe"),
        ("x = [-inf]", "finite numbers were expected, got -inf; in the recipe"),
        ("x = 1e999", "finite numbers were expected, got inf; in the recipe"),
        ("x = " + "[" * 5000 + "]" * 5000, "TOML was expected in the recipe, got: maximum"),
        ("x" * 10**5 + " = 1", "… (100000 characters) is no stage of this recipe. Known: "),
        ('"\\u202ex\\n" = 1', "'\\u202ex\\n' is no stage of this recipe"),
        (f'[toy]\nshare = "{"y" * 10**5}"', "… (100000 characters); in the recipe"),
        ("[toy]\nshare = 1979-05-27", "setting 'share': input should be a valid number, got"),
        ("[toy]\nlimit = 1.5", "setting 'limit': input should be a valid integer"),
        (f"stages = ['{'z' * 10**5}']", "a registered stage was expected, got 'zzz"),
    ],
)
def test_recipe__values_that_no_setting_has_are_refused_shortly(text: str, message: str) -> None:
    own = text if text.startswith("stages") else TOY.replace('"plain", "toy@2"', "") + text
    with pytest.raises(RecipeError) as caught:
        parse_recipe(own.replace('"toy", ]', '"toy"]'), name="x")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"toy.limit={MANY}", "unable to parse input string as an integer, exceeded maximum size"),
        (f"toy.limit=0x{MANY}", "whole numbers of 64 bits were expected"),
        ("toy.share=nan", "finite numbers were expected, got nan; in the recipe with --set"),
        ("toy.filter_by=\udcff", r"text in Unicode was expected, got '\udcff'; in the recipe"),
        ("toy.\udcff=1", r"text in Unicode was expected, got '\udcff'"),
        ("toy.names=" + "[" * 5000, "setting 'names': input should be a valid tuple"),
        ("toy." + "a." * 5000 + "b=1", "stage 'toy' has no setting 'a'"),
        ("toy.share.x=1\x00", "setting 'share': input should be a valid number"),
    ],
)
def test_override__values_that_no_setting_has_are_refused_shortly(
    override: str, message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(TOY, name="x", overrides=[override])
    assert message in str(caught.value)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()


def test_recipe__a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b'\xef\xbb\xbfstages = ["source"]')
    assert load_recipe(str(tmp_path / "r.toml")).stages == ("source",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "a folder"),
        (lambda path: os.mkfifo(path), "a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("/proc/kmsg"), "an empty file"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"#" * (2**20 + 1)), "1.0 MiB, more than 1 MiB"),
        (lambda path: path.write_bytes("stages = 1".encode("utf-16")), "text that is not UTF-8"),
        (lambda path: path.symlink_to(path), "too many levels of symbolic links"),
    ],
)
def test_recipe__what_is_no_small_file_of_text_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    path = tmp_path / "r.toml"
    make(path)
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert f"a readable TOML file was expected at {path}, got: {message}" in str(caught.value)


@pytest.mark.parametrize("name", ["/", "x" * 5000 + ".toml", "./"])
def test_recipe__paths_that_lead_nowhere_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="recipe: a readable TOML file was expected at"):
        load_recipe(name)
