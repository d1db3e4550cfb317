"""The files that browsers fetch: copies of what npm distributes, unchanged, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import edgefl_server.dashboard
from edgefl.hashing import sha256

from .conftest import Visit

FOLDER = Path(edgefl_server.dashboard.__file__).parent
VENDORED = {
    "htmx-2.0.11.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "uplot-1.6.32.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uplot-1.6.32.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
TEMPLATES = sorted((FOLDER / "templates").iterdir())


@pytest.mark.parametrize("name", VENDORED)
def test_a_vendored_file_is_what_npm_distributes_and_has_its_licence_beside_it(name: str) -> None:
    assert sha256((FOLDER / "static" / name).read_bytes()) == VENDORED[name]
    assert (FOLDER / "static" / f"{name.partition('-')[0]}.LICENSE").stat().st_size > 100
    assert name.removesuffix(".css") in (FOLDER / "static" / "README.md").read_text()


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_a_script_a_style_or_an_address_of_elsewhere(path: Path) -> None:
    text = path.read_text()
    assert re.findall(r"<script(?! src=\"\{\{ link)", text) == []
    assert re.findall(r"<style|\bstyle=|\bon[a-z]+=|hx-on|javascript:|https?://|\|\s*safe", text) == []


def test_a_file_is_kept_by_a_browser_until_it_is_another_one(visit: Visit) -> None:
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', visit.get("/sign-in").text)
    assert len(found) == 6
    for address in found:
        answer = visit.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert {visit.get(each).headers["Content-Type"].partition(";")[0] for each in found} == {
        "image/svg+xml",
        "text/css",
        "text/javascript",
    }


@pytest.mark.parametrize("name", ["../rendering.py", "README.md", "no.js", "%2e%2e%2frendering.py", "uplot.LICENSE"])
def test_nothing_else_can_be_fetched(visit: Visit, name: str) -> None:
    assert visit.get(f"/static/{name}").status_code == 404
