"""Recipes: the stages of a run in their order, and the settings of each, as TOML.

A recipe is read, changed by ``stage.key=value`` and checked against the settings of its stages
before anything else happens. What a run writes beside its output is the *resolved* recipe: every
setting of every stage, with the defaults that held then.
"""

import math
import re
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from pipelines.errors import RecipeError
from pipelines.registry import STAGES, load_stage
from pipelines.storage.address import check_secrets, normalize
from pipelines.storage.contract import known_columns
from pipelines.storage.files import RECIPE_BYTES, open_named
from pipelines.storage.folders import check_listed, check_rounds
from pipelines.storage.wording import did_you_mean, is_unicode, shown, why

FOLDER = Path(__file__).with_name("recipes")
"""Recipes that come with the project and go by name."""

ROUND = "@([2-9]|[1-9][0-9]{1,3})"
STAGE_NAME = re.compile(rf"[a-z][a-z0-9_]*({ROUND})?")

OPTIONAL = "?"
"""Ends the name of a stage that is left out where the data does not call for it."""

UNUSED = re.compile(r"unused(_[a-z0-9_]+)?")
"""Stands for a column of the data contract where one of the files is to be hidden."""

OWN_KEYS = ("name", "stages", "data")
"""Keys of a recipe that are not tables of stages."""


class Data(BaseModel, frozen=True, extra="forbid"):
    """What a run has to know of its source: the recipe's ``[data]``."""

    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Name in the data contract (item_id, label, image, …) = name in your files.",
    )
    features: tuple[str, ...] = Field(
        default=(),
        description="Columns of a table that items are predicted from, by their names in your "
        "files: numbers, truth values, dates, text as categories. '*': all that are not used "
        "otherwise; '-NAME' leaves one out. Missing values are filled, and said to be missing.",
    )
    opinions: tuple[str, ...] = Field(
        default=(),
        description="Columns with out-of-sample probabilities of several models, by their names in "
        "your files: vectors with one for every class. They are combined, and the one label of an "
        "item is changed where models agree.",
    )
    classes: tuple[str, ...] = Field(
        default=(),
        description="Class names in the order of their ids; empty: taken from the files' "
        "metadata, or from the labels.",
    )
    absent_classes: Literal["refuse", "allow"] = Field(
        default="refuse", description="What to do if a class named in classes has no item."
    )
    absent_labels: Literal["negative", "unknown"] = Field(
        default="negative",
        description="What it means that a class is not in an item's list 'labels'. negative: the "
        "item does not have it; unknown: it may. With a column 'labels_negative' it is unknown.",
    )
    splits: tuple[str, ...] = Field(
        default=(),
        description="Read only shards whose file or folder name contains one of these splits "
        "(train, validation, test); empty: all.",
    )
    max_bad_share: float = Field(
        default=0.01,
        ge=0.0,
        le=1.0,
        description="The run stops if more than this share of the items cannot be used.",
    )

    @field_validator("opinions")
    @classmethod
    def _check_opinions(cls, opinions: tuple[str, ...]) -> tuple[str, ...]:
        if len(opinions) == 1 or len(set(opinions)) < len(opinions):
            raise ValueError(
                f"two columns or more were expected, each once, got {list(opinions)}. A single one "
                "is mapped with data.columns.pred_probs"
            )
        return opinions

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        for ours in columns:
            if ours not in known_columns() and not UNUSED.fullmatch(ours):
                raise ValueError(
                    f"a column of the data contract was expected before '=', got {shown(ours)}"
                    f"{did_you_mean(ours, known_columns())} Known: {list(known_columns())}; "
                    "'unused' hides a column"
                )
        return columns


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes
    ----------
    name : what it is called in reports and runs.
    stages : names of the stages in their order; a second one of a kind is ``name@2``.
    data : settings of the source.
    configs : settings of each stage.
    optional : stages that are left out where the data does not call for them; listed as ``name?``.
    """

    name: str
    stages: tuple[str, ...]
    data: Data
    configs: Mapping[str, BaseModel]
    optional: frozenset[str] = frozenset()

    def settings(self, stage: str) -> BaseModel:
        """Return the settings of a stage."""
        return self.configs[stage]

    def data_dict(self) -> dict[str, Any]:
        """Return those settings of the source on which results depend.

        Without `max_bad_share`: a run that was stopped by the limit goes on under a higher one.
        """
        return self.data.model_dump(mode="json", exclude={"max_bad_share"})

    def to_toml(self) -> str:
        """Return the resolved recipe: every setting written out."""
        import tomli_w

        # TOML has no null: what is absent is left out, and None is what absence means to us.
        tables = {
            name: config.model_dump(mode="json", exclude_none=True)
            for name, config in [("data", self.data), *self.configs.items()]
        }
        listed = [name + OPTIONAL * (name in self.optional) for name in self.stages]
        return tomli_w.dumps({"name": self.name, "stages": listed, **tables})


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_recipe(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, change settings, check it.

    Parameters
    ----------
    recipe
        Name of a recipe that comes with the project, or path or URI of a TOML file.
    overrides
        ``stage.key=value`` each; the value is read as TOML, or else taken as a string.

    Raises
    ------
    RecipeError
        If there is no such recipe, or it is wrong; says where and what was meant, perhaps.
    """
    check_secrets(recipe, "recipe")
    where = recipe
    if recipe in recipe_names():
        where = str(FOLDER / f"{recipe}.toml")
    elif not recipe.endswith(".toml") and "/" not in recipe:
        raise RecipeError(
            f"recipe: a name or the path of a .toml file was expected, got {shown(recipe)}"
            f"{did_you_mean(recipe, recipe_names())} Known: {recipe_names()}"
        )
    try:
        store, leaf = open_named(where, most=RECIPE_BYTES)
        text = store.read_bytes(leaf).decode("utf-8-sig")
    except Exception as err:
        # Every file system has errors of its own for a lack of credentials.
        raise RecipeError(
            f"recipe: a readable TOML file was expected at {where}, got: {why(err)}. Check "
            f"the path, or name one that comes with the project: {recipe_names()}"
        ) from err
    return parse_recipe(text, name=leaf.removesuffix(".toml"), where=where, overrides=overrides)


def parse_recipe(
    text: str, *, name: str, where: str = "the recipe", overrides: Sequence[str] = ()
) -> Recipe:
    """Read a recipe from TOML and check it; see `load_recipe`.

    It is called `name` when it does not say so itself; `where` it is from is for messages.
    """
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        # Also whole numbers of thousands of digits, and what is nested thousands of levels deep.
        raise RecipeError(f"recipe: TOML was expected in {where}, got: {why(err)}") from err
    check_secrets(tables, "recipe")
    check_secrets(list(overrides), "--set")
    for override in overrides:
        _set(tables, override)
    if overrides:
        where = f"{where} with --set"
    _check_values(tables, where)
    stages, optional = _stages(tables.get("stages"), where)
    known = [*OWN_KEYS, *stages]
    for key in tables:
        if key not in known:
            raise RecipeError(
                f"recipe: {shown(key)} is no stage of this recipe{did_you_mean(key, known)} Known: "
                f"{known}; in {where}"
            )
    title = tables.get("name", name)
    if not isinstance(title, str) or not title.strip() or not is_unicode(title):
        raise RecipeError(f"recipe: 'name' must be text, got {shown(title)}; in {where}")
    data = check_table(Data, tables.get("data", {}), "data", where)
    configs = {
        stage: _located(
            check_table(load_stage(stage).config, _table(tables, stage), f"stage {stage!r}", where),
            stage,
        )
        for stage in stages
    }
    return Recipe(title, stages, data, configs, optional)


def _check_values(tables: dict[str, Any], where: str) -> None:
    """Stop at values that no setting has, and that could not be written down again."""
    todo: list[Any] = [tables]
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            todo.extend(value)
            if isinstance(value, dict):
                todo.extend(value.values())
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise RecipeError(
                f"recipe: whole numbers of 64 bits were expected, got {shown(value)}; in {where}"
            )
        elif isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"recipe: finite numbers were expected, got {value}; in {where}")
        elif isinstance(value, str) and not is_unicode(value):
            raise RecipeError(
                f"recipe: text in Unicode was expected, got {shown(value)}; in {where}. Was it "
                "typed in another encoding than UTF-8?"
            )


def _table(tables: Mapping[str, Any], stage: str) -> object:
    """Return a stage's own settings; a later round has those of the first where it says nothing."""
    own, first = tables.get(stage, {}), tables.get(stage.partition("@")[0], {})
    if stage in tables and not (isinstance(own, dict) and isinstance(first, dict)):
        return own
    return {**first, **own} if isinstance(first, dict) else first


def files_of(config: BaseModel, stage: str) -> dict[str, str]:
    """Return the settings of a stage that name files, with the files."""
    named = load_stage(stage).files(config)
    return {key: value for key, value in config if isinstance(value, str) and value in named}


def _located(config: BaseModel, stage: str) -> BaseModel:
    """Spell addresses in the one way, so that a run can be gone on with from any folder."""
    for key, value in config:
        if value == "" and files_of(config.model_copy(update={key: "x"}), stage).get(key):
            normalize("", f"{stage}.{key}")
    files = files_of(config, stage)
    return config.model_copy(
        update={key: normalize(path, f"{stage}.{key}") for key, path in files.items()}
    )


def _stages(value: object, where: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of the stages, and those of them that are optional."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise RecipeError(
            "recipe: 'stages' must be a list of names of stages in their order, got "
            f"{shown(value)}; in {where}. Known: {list(STAGES)}"
        )
    optional = frozenset(name[:-1] for name in value if name.endswith(OPTIONAL))
    value = [name.removesuffix(OPTIONAL) for name in value]
    for name in value:
        load_stage(name)
        if not STAGE_NAME.fullmatch(name):
            raise RecipeError(
                f"recipe: a stage is listed as name or name@2, got {shown(name)}; in {where}"
            )
        if value.count(name) > 1:
            raise RecipeError(
                f"recipe: stage {shown(name)} is listed {value.count(name)} times; in {where}. "
                f"List the second as '{name.split('@')[0]}@2', with a table of its own"
            )
    check_rounds(value, where)
    check_listed([name for name in value if name not in optional], load_stage, where)
    return tuple(value), optional


def _set(tables: dict[str, Any], override: str) -> None:
    """Apply one ``stage.key=value``."""
    target, equals, value = override.partition("=")
    *path, key = [part.strip() for part in target.split(".")]
    if not equals or not path or not all([*path, key]):
        raise RecipeError(
            f"--set: stage.key=value was expected, got {shown(override)}. For example: "
            "--set data.max_bad_share=0.05"
        )
    table = tables
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeError(
                f"--set: {shown(part)} of {shown(override)} is a value, not a table of settings"
            )
    table[key] = parse_value(value)


def parse_value(text: str) -> Any:
    """Read a value as TOML, or else take it as a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # More than one key came from a line break inside the text: not a TOML value.
    return parsed["value"] if list(parsed) == ["value"] else text


def check_table(model: type[BaseModel], table: object, who: str, where: str) -> Any:
    """Check a table of settings against its model; `who` has them, and `where`, is for messages.

    Raises
    ------
    RecipeError
        If a key is not known, is missing, or has a value that cannot be; it names all of them.
    """
    if not isinstance(table, dict):
        raise RecipeError(
            f"{who}: a table of settings was expected, got {shown(table)}; in {where}"
        )
    try:
        return model.model_validate(table)
    except ValidationError as err:
        messages = [_message(model, who, error) for error in err.errors(include_url=False)]
        raise RecipeError(f"{'; '.join(dict.fromkeys(messages))}; in {where}") from err


def _message(model: type[BaseModel], who: str, error: Mapping[str, Any]) -> str:
    """Put one of pydantic's findings into our words."""
    loc = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        known = sorted(_fields(model, loc[:-1]))
        inside = f" in {shown('.'.join(loc[:-1]))}" if loc[:-1] else ""
        hint = did_you_mean(loc[-1], known)
        return f"{who} has no setting {shown(loc[-1])}{inside}{hint} Known: {known}"
    said = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if not loc:
        return f"{who}: {said}"
    if error["type"] == "missing":
        return f"{who}: setting {shown('.'.join(loc))} must be given"
    said = said[:1].lower() + said[1:]
    if error["type"] == "value_error" and "got " in said:
        return f"{who}: setting {shown('.'.join(loc))}: {said}"
    return f"{who}: setting {shown('.'.join(loc))}: {said}, got {shown(error['input'])}"


def _fields(model: type[BaseModel], loc: Iterable[str]) -> Iterable[str]:
    """Return the settings of a model, or of the one nested at a place in it."""
    for part in loc:
        field = model.model_fields.get(part)
        if field is None:
            continue  # the place in a list, or the member of a union
        # Also inside `Model | None`, `list[Model]` and the like.
        for member in (field.annotation, *typing.get_args(field.annotation)):
            if isinstance(member, type) and issubclass(member, BaseModel):
                model = member
    return model.model_fields


def stage_schema(stage: str) -> dict[str, Any]:
    """Return the JSON Schema of a stage's settings."""
    return load_stage(stage).config.model_json_schema()


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe, for editors and forms."""
    properties: dict[str, Any] = {
        "name": {"type": "string", "description": "Name of the recipe in reports."},
        "stages": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": "string", "pattern": f"^({'|'.join(STAGES)})({ROUND})?[?]?$"},
            "description": "Stages in their order; 'name?' is left out where the data does not "
            "call for it.",
        },
    }
    # Definitions move to the top, under names of their own: stages may use the same names.
    definitions: dict[str, Any] = {}
    patterns: dict[str, Any] = {}
    tables: dict[str, type[BaseModel]] = {"data": Data}
    tables |= {name: load_stage(name).config for name in STAGES}
    for name, model in tables.items():
        schema = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        nested = schema.pop("$defs", {})
        definitions |= {f"{name}.{key}": value for key, value in nested.items()}
        properties[name] = schema
        if name != "data":
            patterns[f"^{name}{ROUND}$"] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Recipe of a labelops run",
        "type": "object",
        "required": ["stages"],
        "properties": properties,
        "patternProperties": patterns,
        "additionalProperties": False,
        "$defs": definitions,
    }
