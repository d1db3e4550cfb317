"""The tables of docs/strategies.md, from what strategies and their parts say of themselves: ``make strategies``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgefl.algorithms import algorithm
from edgefl.plugins import Registry
from edgefl_server.aggregation import STRATEGIES, Strategy
from edgefl_server.aggregation.hyperparameters import Setting, parts_of, settings_of
from edgefl_server.aggregation.pre_aggregation import PRE_AGGREGATORS
from edgefl_server.aggregation.rules import RULES
from edgefl_server.aggregation.server_optimizers import SERVER_OPTIMIZERS
from edgefl_server.option_names import option_of

__all__ = ["TABLES", "with_tables"]

_START, _END = "<!-- made by `make strategies`: {} -->\n", "<!-- end -->\n"


def strategies() -> str:
    """The strategies that are edgefl's own, a row each, as Markdown."""
    rows = [_strategy(name, entry) for name, entry in _own(STRATEGIES)]
    return "\n".join(
        ("| `--strategy` | for | options of its own | parts | the model file |", "|---" * 5 + "|", *rows, "")
    )


def _strategy(name: str, strategy: type[Strategy]) -> str:
    parts = parts_of(strategy)
    chosen = {each.name for each in parts if not each.fixed}
    options = [_option(each) for each in settings_of(strategy) if not each.part and each.name not in (*chosen, _SHARED)]
    needs = algorithm(strategy.algorithm)
    file = f"`--algorithm {needs.name}`" if needs.name else "any"
    if needs.plain_sgd:
        file += ", plain SGD with a constant learning rate"
    if strategy.model:
        file += f"; {strategy.model}"
    shown = ", ".join(f"`{option_of(each.name)}`" for each in parts if not each.fixed)
    return f"| `{name}` | {strategy.summary} | {'; '.join(options)} | {shown} | {file} |".replace("|  |", "| |")


_SHARED = "weighting"
"""An option of all that have parts."""


def _parts(registry: Registry[Any], option: str) -> Callable[[], str]:
    def table() -> str:
        rows = [
            f"| `{name}` | {entry.summary} | {'; '.join(map(_option, settings_of(entry)))} |".replace("|  |", "| |")
            for name, entry in _own(registry)
        ]
        return "\n".join((f"| `{option_of(option)}` | for | options |", "|---" * 3 + "|", *rows, ""))

    return table


TABLES: Mapping[str, Callable[[], str]] = {
    "strategies": strategies,
    "server optimizers": _parts(SERVER_OPTIMIZERS, "server_optimizer"),
    "rules": _parts(RULES, "rule"),
    "pre-aggregation": _parts(PRE_AGGREGATORS, "pre_aggregation"),
}
"""The functions that make the tables, by the names in their marks."""


def with_tables(text: str) -> str:
    """A page with its tables as they have to be, each between its marks."""
    for name, table in TABLES.items():
        start = _START.format(name)
        before, found, rest = text.partition(start)
        if found:
            text = f"{before}{start}{table()}{_END}{rest.partition(_END)[2]}"
    return text


def _own(registry: Registry[Any]) -> list[tuple[str, Any]]:
    entries = ((name, registry.get(name)) for name in registry.names())
    return [(name, entry) for name, entry in entries if entry.__module__.startswith("edgefl_server.")]


def _option(each: Setting) -> str:
    return f"`{option_of(each.name)}`, {each.table or each.help}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")
