"""Mutated recipes and values of --set: read or refused, and the same when written again."""

import random
import string
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.recipe import FOLDER, load_recipe, parse_recipe, recipe_names
from tests.fuzz.mutate import damaged

ODD = (
    "0", "-1", "1e308", "1e999", "nan", "inf", "true", '""', "[]", "{}", "[[]]", "'x'",
    "0x" + "f" * 40, "9" * 5000, "1979-05-27T07:32:00Z", '"\\u0000"', '"\\U0010FFFF"', "[" * 300,
    "{a={b={c=1}}}", '["a", 1]', "1_000", "'''\n'''", "\udcff", "\0", "s3://u:p@h/x", "~/x", "../x",
    "/dev/zero",
)  # fmt: skip


@cache
def seeds() -> tuple[str, ...]:
    """Return the recipes that come with the project, as written and with every setting."""
    written = [path.read_text() for path in sorted(FOLDER.glob("*.toml"))]
    return (*written, *(load_recipe(name).to_toml() for name in recipe_names()))


@cache
def settings() -> tuple[str, ...]:
    """Return the settings of all stages of those recipes, as --set names them."""
    found = []
    for name in recipe_names():
        recipe = load_recipe(name)
        for stage, config in [("data", recipe.data), *recipe.configs.items()]:
            found += [f"{stage}.{key}" for key in type(config).model_fields]
    return tuple(dict.fromkeys(found))


def _value(rng: random.Random) -> str:
    if rng.random() < 0.6:
        return rng.choice(ODD)
    signs = string.printable + "äé漢\u202e\u200b\x1f"
    return "".join(rng.choice(signs) for _ in range(rng.choice((1, 3, 10, 200))))


def _override(rng: random.Random) -> str:
    target = rng.choice(settings())
    kind = rng.randrange(5)
    if kind == 0:
        target = "".join(c for c in target if rng.random() < 0.9)
    elif kind == 1:
        target = f"{target}.{_value(rng)}"
    elif kind == 2:
        target = f"data.columns.{_value(rng)}"
    return f"{target}={_value(rng)}" if rng.random() < 0.95 else target


def _text(rng: random.Random) -> str:
    text = rng.choice(seeds())
    kind = rng.randrange(4)
    if kind == 0:
        return text
    if kind == 1:
        encoded = damaged(text.encode(), rng, [other.encode() for other in seeds()])
        return encoded.decode(errors="replace")
    lines = text.splitlines()
    for _ in range(rng.choice((1, 2, 5))):
        at = rng.randrange(len(lines))
        key, equals, _ = lines[at].partition("=")
        if kind == 2 and equals:
            lines[at] = f"{key}= {_value(rng)}"
        else:
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return "\n".join(lines)


def batch(numbers: range) -> Iterator[tuple[int, Any]]:
    """Yield the recipe and overrides of each seed."""
    for seed in numbers:
        rng = random.Random(seed)
        text = _text(rng)
        yield seed, (text, [_override(rng) for _ in range(rng.choice((0, 0, 1, 1, 3)))])


def work(made: tuple[str, list[str]], folder: Path) -> None:
    """Read a recipe; what is read is the same again after it was written."""
    text, overrides = made
    found = parse_recipe(text, name="fuzz", overrides=overrides)
    again = found.to_toml()
    again.encode()
    if parse_recipe(again, name="fuzz") != found:
        raise AssertionError(f"read otherwise after it was written: {again[:200]!r}")
