"""From values to pages: what is put into one is escaped, and what a browser may do with it is said in its header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from edgefl.version import __version__
from edgefl_server import people_text
from edgefl_server.dashboard.static_files import link
from edgefl_server.dates import date_and_time, iso_date

__all__ = ["SECURE", "page", "secured"]

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
SECURE = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # With none at all, browsers would not say where a form comes from either.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_UNITS = ("B", "kB", "MB", "GB", "TB")


def page(template: str, values: Mapping[str, Any], status: int = 200) -> Response:
    """An answer that shows a template."""
    text = _ENVIRONMENT.get_template(f"{template}.html.j2").render(**values)
    return HTMLResponse(text, status, SECURE)


def secured(response: Response) -> Response:
    """An answer with the headers that every one of the dashboard has; those that it has already stay."""
    for name, value in SECURE.items():
        response.headers.setdefault(name, value)
    return response


def _bytes(count: float | None) -> str:
    if count is None:
        return "–"
    power = min(len(_UNITS) - 1, int(math.log10(max(count, 1)) // 3))
    value = count / 1000**power
    return f"{value:.0f} {_UNITS[power]}" if power == 0 or value >= 100 else f"{value:.3g} {_UNITS[power]}"


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def _when(seconds: float | None) -> Markup | str:
    if seconds is None:
        return "–"
    return Markup('<time datetime="{}">{} UTC</time>').format(iso_date(seconds), date_and_time(seconds))


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _took(seconds: float | None) -> str:
    """The time that something took: rounds of small models take less than a second."""
    return f"{seconds:.1f} s" if seconds is not None and 0 <= seconds < 10 else _ago(seconds)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # an update of edgefl while it runs is for the next start
    )
    environment.filters |= {
        "bytes": _bytes,
        "number": _number,
        "when": _when,
        "ago": _ago,
        "took": _took,
        "words": _words,
    }
    environment.filters["detail"] = people_text.detail
    environment.globals |= {"link": link, "version": __version__, "escape": escape}
    return environment


_ENVIRONMENT = _environment()
