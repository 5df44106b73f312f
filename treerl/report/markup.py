"""Writes HTML and SVG so that text is escaped unless it was built here, and formats the numbers on a page."""

import html
import math
from collections.abc import Iterable

_VOID = frozenset({"meta", "link", "img", "br"})
_CONTROL = {code: "\ufffd" for code in (*range(9), 11, 12, *range(14, 32), 127)}


class Html(str):
    """Markup that was built by `element`; every other string counts as hostile text and is escaped."""

    __slots__ = ()


def text(value: str) -> Html:
    """`value` as text: safe between tags and inside a quoted attribute."""
    return (
        value
        if isinstance(value, Html)
        else Html(html.escape(value.translate(_CONTROL), quote=True))
    )


def join(parts: Iterable[str]) -> Html:
    """The parts one after the other, each escaped unless it is markup already."""
    return Html("".join(text(part) for part in parts))


def element(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """One element; `class_` means class, `stroke_width` means stroke-width, None leaves the attribute out."""
    opened = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{opened}>")
    return Html(f"<{name}{opened}>{join(children)}</{name}>")


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return html.escape(str(value).translate(_CONTROL), quote=True)
    return f"{value:.2f}".rstrip("0").rstrip(".")


def quoted(value: str) -> Html:
    """A caption in quotes, isolated so that right-to-left text cannot reorder the page around it."""
    return join(("“", element("bdi", value), "”"))


def number(value: object) -> float | None:
    """`value` when it is a finite number, otherwise None (booleans are no numbers here)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def show(value: object) -> str:
    """A number as people read it: grouped whole numbers, four significant digits, a dash for nothing."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    found = number(value)
    if found is None:
        return "–"
    if found == int(found) and abs(found) < 1e15:
        return f"{int(found):,}".replace("-", "−")
    return (f"{found:,.0f}" if abs(found) >= 1e4 else f"{found:.4g}").replace("-", "−")


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign, `0` when it rounds to nothing."""
    written = f"{value:+.{digits}f}"
    return written.replace("-", "−") if float(written) else f"{0:.{digits}f}"


def percent(share: float) -> str:
    """A share as whole percent; 0 % and 100 % are kept for exactly none and all."""
    whole = round(share * 100)
    exact = share in (0, 1) or whole not in (0, 100)
    return (
        f"{whole} %"
        if exact
        else f"{share * 100:.2g} %"
        if whole == 0
        else f"{math.floor(share * 1000) / 10} %"
    )


def duration(seconds: float) -> str:
    """Seconds as `1 h 2 min`, `1 min 38 s` or `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
