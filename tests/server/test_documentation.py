"""docs/protocol.md and docs/operating.md name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

import edgefl_server
from edgefl.codecs import codec_names
from edgefl.wire.refusals import Refusal
from edgefl_server.aggregation import STRATEGIES, run_settings
from edgefl_server.aggregation.pre_aggregation import PRE_AGGREGATORS
from edgefl_server.aggregation.rules import RULES
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS
from edgefl_server.cli import run
from edgefl_server.http import create_app
from edgefl_server.http.operator_routes import NewRun
from edgefl_server.strategy_table import TABLES, with_tables

DOCS = Path(__file__).parents[2] / "docs"
PROTOCOL, OPERATING, STRATEGIES_PAGE = (DOCS / f"{name}.md" for name in ("protocol", "operating", "strategies"))


def test_every_call_is_in_the_protocol(fleet) -> None:
    text = PROTOCOL.read_text()
    for path in create_app(fleet.state, "operators-token").openapi()["paths"]:
        pattern = re.escape(path).replace(r"\{run_id\}", r"\{id or name\}")
        assert re.search(re.sub(r"\\\{\w+_hash\\\}", r"\\{hash\\}", pattern), text), path


def test_the_server_refuses_with_codes_of_the_one_list_and_uses_all_of_it() -> None:
    source = "\n".join(path.read_text() for path in Path(edgefl_server.__file__).parent.rglob("*.py"))
    spelled = re.findall(
        r"(?:OutcomeRefusedError|NotWantedError|EnrolmentRefusedError|_refused|RequestError|response|error_body)"
        r'\(\s*(?:\w+,\s*)?"(\w+)"',
        source,
    ) + re.findall(r'\b4\d\d: "(\w+)"', source)
    assert spelled == [], "members of Refusal instead"
    assert [refusal.name for refusal in Refusal if f"Refusal.{refusal.name}" not in source] == []


def test_every_codec_is_in_the_protocol() -> None:
    assert [name for name in codec_names() if f"| `{name}` |" not in PROTOCOL.read_text()] == []


def options() -> list[str]:
    command = typer.main.get_command(run).commands["create"]  # type: ignore[attr-defined]
    return [option for parameter in command.params for option in parameter.opts if option.startswith("--")]


def test_settings_query_and_options_of_a_run_are_in_step() -> None:
    settings = {each.name: each.default for each in run_settings() if not each.required}
    query = {name: field.default for name, field in NewRun.model_fields.items() if not field.is_required()}
    command = typer.main.get_command(run).commands["create"]  # type: ignore[attr-defined]
    chosen = {parameter.name: parameter.default for parameter in command.params if not parameter.required}
    for name in ("state", "server", "format", "help", "target"):  # the last is not needed for --rounds +N
        chosen.pop(name, None)
    assert query == {**settings, "name": "", "weights": None, "evaluate_on": ""}
    assert chosen == {**query, "evaluate_on": None}  # a file, whose hash the query has


@pytest.mark.parametrize("option", options())
def test_every_option_of_a_run_is_in_the_operators_page(option: str) -> None:
    assert option in OPERATING.read_text() or option == "--help"


def test_the_tables_of_strategies_and_their_parts_are_what_they_say_of_themselves() -> None:
    text = STRATEGIES_PAGE.read_text()
    assert with_tables(text) == text, "run `make strategies`"
    assert [name for name in TABLES if f"`make strategies`: {name} -->" not in text] == []
    for registry in (STRATEGIES, SERVER_OPTIMIZERS, RULES, PRE_AGGREGATORS):
        assert [name for name in registry.names() if f"| `{name}` |" not in text] == []
