"""The report as one page of HTML: no script, and nothing that a browser would fetch from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from xml.etree import ElementTree

from edgefl.parts import Part, needing
from edgefl_simulation.picture import BACKGROUND, GRID, INK, SERIES, Picture, svg
from edgefl_simulation.report.comparing import (
    Compared,
    Table,
    all_settings,
    differing_settings,
    failed_rounds,
    overview,
)
from edgefl_simulation.report.pictures import Section

__all__ = ["GENERATOR", "page"]

GENERATOR = "edgefl report"
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_DARK = {INK: "#e7e9ec", GRID: "#363c44", BACKGROUND: "#16191d"}
_DARK_SERIES = ("#56b4e9", "#e8702a", "#009e73", "#d96bb8", "#f7f7f7", "#f0e442")
"""The colours of `SERIES` on a dark ground, in the same order."""


def page(title: str, runs: Sequence[Compared], pictures: Sequence[Section], written: datetime) -> str:
    """Writes the page.

    Args:
        title: of the page.
        runs: that it is about.
        pictures: as `sections` makes them.
        written: when; shown with its time zone.

    Returns:
        HTML. Its policy allows the one style sheet that is in it, and nothing else.

    Raises:
        MissingDependencyError: matplotlib or Jinja2 is not installed.
    """
    with needing(Part("edgefl_simulation", "simulate")):
        from jinja2 import Environment, StrictUndefined
    folder = Path(__file__).parent
    # Whatever is put in is escaped: names of folders and what devices said are somebody else's words.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = (folder / "page.css").read_text(encoding="utf-8") + _colours()
    # The hash is over all that stands between the tags.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    drawn = [(section, [_inline(picture) for picture in section.pictures]) for section in pictures]
    tables: dict[str, Table] = {
        "overview": overview(runs),
        "differing": differing_settings(runs),
        "failed": failed_rounds(runs),
        "settings": all_settings(runs),
    }
    template = environment.from_string((folder / "page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        generator=GENERATOR,
        written=written.strftime("%Y-%m-%d %H:%M %Z").strip(),
        runs=runs,
        sections=drawn,
        style=style,
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        **tables,
    )


def _colours() -> str:
    """A picture's colours by the page's variables: they follow the reader's choice of dark or light."""
    pairs = [(INK, "ink"), (GRID, "grid"), (BACKGROUND, "ground")]
    pairs += [(colour, f"series-{number}") for number, colour in enumerate(SERIES)]
    dark = _DARK | dict(zip(SERIES, _DARK_SERIES, strict=True))
    light_names = "".join(f"--{name}:{colour};" for colour, name in pairs)
    dark_names = "".join(f"--{name}:{dark[colour]};" for colour, name in pairs)
    rules = "".join(
        f'svg [{attribute}="{colour}"]{{{attribute}:var(--{name})}}\n'
        for colour, name in pairs
        for attribute in ("fill", "stroke")
    )
    # On paper it is light.
    return f":root{{{light_names}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark_names}}}}}\n{rules}"


def _inline(picture: Picture) -> str:
    """A picture as an element of the page: presentation attributes instead of styles, which the policy forbids.

    Two pictures of one page share no id, and letters have the page's font.
    """
    root = ElementTree.fromstring(svg(picture))  # noqa: S314 - made here, a line above
    prefix = f"{picture.name}-"
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}metadata" or child.find(f"{{{_SVG}}}style") is not None:
                parent.remove(child)
    for element in root.iter():
        for declaration in filter(None, (part.strip() for part in element.attrib.pop("style", "").split(";"))):
            name, _, value = declaration.partition(":")
            if name.strip() != "font-family":
                element.set(name.strip(), value.strip())
        if "id" in element.attrib:
            element.set("id", prefix + element.attrib["id"])
        if _LINK in element.attrib:
            element.set("href", "#" + prefix + element.attrib.pop(_LINK).lstrip("#"))
        if "clip-path" in element.attrib:
            element.set("clip-path", re.sub(r"url\(#", f"url(#{prefix}", element.attrib["clip-path"]))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", picture.told())
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")
