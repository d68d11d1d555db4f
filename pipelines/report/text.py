"""Strings and numbers as a reader sees them; every string from the data passes ``clean``."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import partial

from markupsafe import Markup, escape

from pipelines.report.model import Estimate

LIMIT = 240
"""Longest string shown; an item id or a class name may be megabytes long."""

MAX_MARKS = 4
"""Combining marks kept in a row; hundreds of them paint over the lines above and below."""

# Characters that reorder, hide or merge the text around them. Joiners (U+200C, U+200D) stay:
# Persian, the Indic scripts and many emoji need them.
_INVISIBLE = frozenset("\u00ad\u061c\u180e\u200b\u200e\u200f\u2028\u2029\ufeff")
_INVISIBLE |= frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2060, 0x2070)]))

# Blanks that keep a number and its unit on one line.
_JOINING = frozenset("\u00a0\u202f")


def clean(text: str, limit: int = LIMIT) -> str:
    r"""Text that cannot hide, reorder or flood what stands around it.

    Control, bidirectional and zero-width characters, lone surrogates and noncharacters become
    visible (``[U+202E]``), white space becomes plain blanks and anything beyond ``limit``
    characters is cut with a note of the full length. Escaping for HTML comes after this.

    Examples
    --------
    >>> clean("photo\u202egnp.exe")
    'photo[U+202E]gnp.exe'
    >>> clean("x" * 1000, limit=5)
    'xxxxx… (1,000 characters)'
    """
    shown = "".join(_visible(text[:limit]))
    return f"{shown}… ({len(text):,} characters)" if len(text) > limit else shown


def _visible(text: str) -> list[str]:
    parts: list[str] = []
    marks = 0
    for char in text:
        kind = unicodedata.category(char)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if marks > MAX_MARKS:
            continue
        if char in "\t\n\r" or (kind == "Zs" and char not in _JOINING):
            parts.append(" ")
        elif kind in ("Cc", "Cs", "Co", "Cn") or char in _INVISIBLE or ord(char) >= 0xE0000:
            parts.append(f"[U+{ord(char):04X}]")
        else:
            parts.append(char)
    return parts


def count(value: float) -> str:
    """A whole number with thousands separators.

    Examples
    --------
    >>> count(1234567.4), count(-0.2)
    ('1,234,567', '0')
    """
    return f"{round(value):,}"


def percent(value: float) -> str:
    r"""A share in percent, with more digits where it is small.

    Examples
    --------
    >>> percent(0.1234), percent(0.00042), percent(0.0), percent(1.0), percent(1e-7)
    ('12.3\u202f%', '0.04\u202f%', '0\u202f%', '100\u202f%', '<\u202f0.01\u202f%')
    """
    hundredths = value * 100
    if value in (0, 1):
        return f"{hundredths:.0f}\u202f%"
    if 0 < hundredths < 0.01:
        return "<\u202f0.01\u202f%"
    if 99.95 <= hundredths < 100:
        return ">\u202f99.9\u202f%"
    return f"{hundredths:.{1 if abs(hundredths) >= 1 else 2}f}\u202f%"


def decimal(value: float, digits: int = 3) -> str:
    """A number between 0 and 1, or a measure, with fixed digits.

    Examples
    --------
    >>> decimal(0.12345), decimal(float("nan"))
    ('0.123', 'not defined')
    """
    return f"{value:.{digits}f}" if value == value else "not defined"


def signed(value: float) -> str:
    """A difference of shares, with its sign.

    Examples
    --------
    >>> signed(0.5), signed(-0.125), signed(0.0)
    ('+0.50', '−0.12', '0.00')
    """
    if abs(value) < 0.005:
        return "0.00"
    return f"{value:+.2f}".replace("-", "−")


def seconds(value: float) -> str:
    r"""A duration that a person would say.

    Examples
    --------
    >>> seconds(0.034), seconds(4.25), seconds(75), seconds(7325)
    ('34\u202fms', '4.2\u202fs', '1\u202fmin 15\u202fs', '2\u202fh 2\u202fmin')
    """
    if value < 0.9995:
        return f"{value * 1000:.0f}\u202fms"
    if value < 59.95:
        return f"{value:.1f}\u202fs"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}\u202fmin {rest}\u202fs"
    return f"{minutes // 60}\u202fh {minutes % 60}\u202fmin"


def plural(number: float, one: str, many: str = "") -> str:
    """A count with its noun.

    Examples
    --------
    >>> plural(1, "label"), plural(2000, "label"), plural(3, "class", "classes")
    ('1 label', '2,000 labels', '3 classes')
    """
    return f"{count(number)} {one if round(number) == 1 else many or one + 's'}"


def times(value: float) -> str:
    """A ratio of 1 or more, which may be past all measure.

    Examples
    --------
    >>> times(1.524), times(41.7), times(657.2), times(float("inf"))
    ('1.52', '42', '657', 'over a million')
    """
    if value >= 1e6:
        return "over a million"
    return f"{value:.2f}" if value < 10 else count(value)


def literal(text: str, most: int = 80) -> str:
    r"""Return text from the data as Markdown shows it literally, on one line.

    Examples
    --------
    >>> literal("a *b*\n<i>")
    'a \\*b\\* &lt;i&gt;'
    """
    text = "".join(c if c.isprintable() else " " for c in text)
    text = text if len(text) <= most else text[: most - 1] + "…"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~-])", r"\\\1", text)


FORMATS: Mapping[str, Callable[[float], str]] = {
    "count": count,
    "percent": percent,
    "decimal": decimal,
    "tenths": partial(decimal, digits=1),
    "hundredths": partial(decimal, digits=2),
    "fine": partial(decimal, digits=4),
    "tiny": "{:.1e}".format,
    "signed": signed,
    "duration": seconds,
}
"""How numbers are shown, by the kind of their column."""


def shown(value: float | Estimate, kind: str) -> str:
    """A number, or an estimate without its interval, as its kind is shown."""
    return FORMATS[kind](value.value if isinstance(value, Estimate) else value)


def interval(value: Estimate, kind: str) -> str:
    r"""The interval of an estimate; empty where none is known.

    Examples
    --------
    >>> interval(Estimate(0.5, 0.25, 1.0), "percent")
    '25.0\u202f%\u2009–\u2009100\u202f%'
    """
    if value.low is None or value.high is None:
        return ""
    return f"{FORMATS[kind](value.low)}\u2009–\u2009{FORMATS[kind](value.high)}"


def named(text: str) -> Markup:
    """A name from the data inside a sentence of our own, set apart from it."""
    return Markup('<bdi class="name">{}</bdi>').format(clean(text, 60) or "(no name)")


def verb(number: float, one: str, many: str) -> str:
    """The verb that goes with a count.

    Examples
    --------
    >>> verb(1, "is", "are"), verb(0, "is", "are")
    ('is', 'are')
    """
    return one if round(number) == 1 else many


def marked(text: str) -> Markup:
    """Show Markdown of our own on the page: emphasis and code, nothing from the data.

    Examples
    --------
    >>> marked("**All** of `a_b/` <i>")
    Markup('<strong>All</strong> of <code>a_b/</code> &lt;i&gt;')
    """
    html = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`(.+?)`", r"<code>\1</code>", html))
