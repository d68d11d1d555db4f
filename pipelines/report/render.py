"""Report → one HTML page that needs nothing else.

Strings from the data are hostile: every expression passes ``clean`` and is escaped, attributes are
quoted, a content security policy allows our one style sheet (by its hash) and embedded pictures,
and nothing else: no script, no network, no form.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from pipelines.report import charts, text
from pipelines.report.findings import findings
from pipelines.report.limits import Limits
from pipelines.report.model import Picture, Report, Tile

MEDIA = frozenset({"image/png", "image/webp", "image/jpeg"})
"""What a picture may be. Not SVG: it can carry scripts and references."""


def render(report: Report, limits: Limits | None = None) -> str:
    """The whole page, an HTML document; the same report gives the same text.

    Pictures beyond the limit ``picture_bytes`` are left out, in reading order.
    """
    limits = limits or Limits()
    css = resources.files("pipelines.report").joinpath("report.css").read_text("utf-8")
    template = _environment().get_template("report.html.j2")
    return template.render(
        r=report,
        limits=limits,
        css=Markup(css),
        css_hash=base64.b64encode(hashlib.sha256(css.encode()).digest()).decode(),
        parts=charts.ledger_parts(report.ledger),
        head=next((section for section in report.sections if section.headline), None),
        tiles=_tiles(report),
        findings=findings(report),
        uri=_embedder(limits.picture_bytes),
    )


def _tiles(report: Report) -> list[Tile]:
    """The numbers at the top."""
    n_classes = text.plural(report.n_classes, "class", "classes")
    tiles = [Tile("Items", text.count(report.ledger.source), f"in {n_classes}")]
    return tiles + [tile for section in report.sections for tile in section.tiles]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipelines.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "shown": text.shown,
        "interval": text.interval,
        "clean": _clean,
        "folds": _folds,
    }
    environment.globals["plural"] = text.plural
    return environment


def _finalize(value: Any) -> Any:
    """Clean whatever is a plain string, so that no expression of the template can forget it."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return text.clean(value)
    return value


def _clean(value: str, limit: int = text.LIMIT) -> Markup:
    """Clean a string up to a limit of its own, or leave as it is what was cleaned before."""
    return value if isinstance(value, Markup) else escape(text.clean(value, limit))


def _folds(rows: Sequence[Any], n_open: int | None) -> list[tuple[Sequence[Any], bool]]:
    """Cut rows into those that are seen and those that are folded away, as far as there are any."""
    if n_open is None or len(rows) <= n_open:
        return [(rows, False)]
    return [(rows[:n_open], False)] * bool(n_open) + [(rows[n_open:], True)]


def _embedder(budget: int) -> Callable[[Picture | None], Markup]:
    """Make a function that gives a picture as ``data:`` address, or nothing beyond the budget."""
    left = budget

    def uri(picture: Picture | None) -> Markup:
        nonlocal left
        if picture is None or picture.media not in MEDIA:
            return Markup()
        encoded = base64.b64encode(picture.data).decode()
        if len(encoded) > left:
            return Markup()
        left -= len(encoded)
        return Markup("data:{};base64,{}").format(picture.media, encoded)

    return uri
