"""What ``--help`` says on a narrow terminal is what the options and docs/operating.md say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edgefl_device_runtime.agent.cli import device
from edgefl_server.cli import run, server
from edgefl_simulation.data_verbs import data
from server_process import edgefl

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
GROUPS = {"server": server, "run": run, "device": device, "data": data}


def commands() -> Iterator[Any]:
    for group, application in GROUPS.items():
        yield from below((group,), typer.main.get_command(application))


def below(path: tuple[str, ...], group: Any) -> Iterator[Any]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from below((*path, name), command)
        else:
            yield pytest.param((*path, name), command, id=" ".join((*path, name)))


def help_of(*command: str) -> dict[str, str]:
    """What is said of each option, in one line."""
    said: dict[str, str] = {}
    option = ""
    done = edgefl(*command, "--help", COLUMNS="80")
    assert done.returncode == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()  # colours, where a build server asks for them
    assert max(map(len, lines)) <= 80
    for line in lines:
        found = re.match(r"│ (?:[ *]  )?(--[a-z0-9-]+)", line)
        option = found[1] if found else option
        if option and line.startswith("│"):
            # Beside its text stand its name and its type, which may go on in further lines, too.
            said[option] = f"{said.get(option, '')} {re.split(r' {2,}', line.strip('│ '))[-1]}".strip()
    return said


def defaults() -> Iterator[Any]:
    """Each option of the table that has a value unless given, with that value."""
    table = OPERATING.read_text().split("| option | means | unless given |")[1].split("\n\n")[0]
    for row in table.splitlines()[2:]:
        options, _, cell = (each.strip().replace("`", "") for each in row.strip("|").split("|"))
        names, value = options.split(", "), cell.partition(":")[0]
        values = value.split(", ") if len(names) > 1 else [value]
        yield from (pytest.param(*pair, id=pair[0]) for pair in zip(names, values, strict=False) if pair[1])


@pytest.mark.parametrize(("path", "command"), commands())
def test_nothing_of_an_options_text_is_missing(path: tuple[str, ...], command: Any) -> None:
    said = help_of(*path)
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    assert {each.opts[0] for each in options} <= set(said)
    for each in options:
        text = said[each.opts[0]]
        assert each.help in text
        if isinstance(each.show_default, str):
            assert f"[default: ({each.show_default})]" in text


@pytest.mark.parametrize(("option", "value"), defaults())
def test_the_help_says_the_defaults_of_the_operators_page(option: str, value: str) -> None:
    text = help_of("run", "create")[option]
    assert re.search(rf"\[default: \(?{re.escape(value)}(\.0)?\)?\]", text), text


def test_the_table_of_defaults_is_read() -> None:
    assert len(list(defaults())) == 27
