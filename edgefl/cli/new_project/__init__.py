"""``edgefl new``: a small project that runs as it is, with the places where a user's own model and data go."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from edgefl.atomic import write_text
from edgefl.cli.output import Format, FormatOption, emit
from edgefl.errors import InvalidSettingError, storage_error

__all__ = ["new"]

_FILES = ("README.md", "model.py", "data.py", "gitignore")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the project, its folder and its population.")],
    format: FormatOption = Format.text,
) -> None:
    """Write a small project in a new folder: a model, data, and a README with the commands that run it."""
    if not _NAME.fullmatch(name):
        raise InvalidSettingError(
            f"Expected a name of letters, digits, - and _, at most 64, a letter first, got {name!r:.80}.",
            hint="As in `edgefl new vibrations`.",
        )
    folder = Path(name)
    if folder.exists() or folder.is_symlink():
        raise InvalidSettingError(f"{folder} is there already.", hint="Choose another name, or go to another folder.")
    commands = _write(folder, name)
    result = {"folder": str(folder), "files": sorted(path.name for path in folder.iterdir()), "commands": commands}
    emit(result, format, lambda: _text(name, commands))


def _write(folder: Path, name: str) -> list[str]:
    """Writes all files or none; returns the commands of the README, a block each."""
    values = {"name": name, "module": name.replace("-", "_")}
    texts = {each: _template(each).substitute(values) for each in _FILES}
    try:
        unfinished = folder.parent / f".{name}.{secrets.token_hex(8)}"
        unfinished.mkdir()
    except OSError as error:
        raise storage_error(error, "make the folder", folder) from error
    try:
        for each, text in texts.items():
            write_text(unfinished / each.replace("gitignore", ".gitignore"), text)
        unfinished.rename(folder)
    except OSError as error:
        raise storage_error(error, "make the folder", folder) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return [block.strip() for block in _BLOCK.findall(texts["README.md"])]


def _template(name: str) -> Template:
    return Template((Path(__file__).parent / f"{name}.template").read_text(encoding="utf-8"))


def _text(name: str, commands: list[str]) -> str:
    first = "\n".join(f"    {line}" for line in ["cd " + name, *commands[0].splitlines()])
    return (
        f"{name}/: model.py, data.py and README.md. It runs as it is:\n\n{first}\n\n"
        f"{name}/README.md goes on with a server and devices, and says where your own data go."
    )
