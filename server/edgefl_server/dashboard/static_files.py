"""The scripts and styles of the pages: files of this package, which browsers keep until they change."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from edgefl.hashing import sha256

__all__ = ["link", "read_static"]

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@cache
def read_static(name: str) -> tuple[bytes, str] | None:
    """The bytes of a file and its type; None: there is none of this name."""
    if name not in {each.name for each in _FOLDER.iterdir() if each.suffix in _TYPES}:
        return None
    return (_FOLDER / name).read_bytes(), _TYPES[Path(name).suffix]


@cache
def link(name: str) -> str:
    """The address of a file, another one when its content is another."""
    found = read_static(name)
    assert found is not None, name
    return f"/static/{name}?{sha256(found[0])[:12]}"
