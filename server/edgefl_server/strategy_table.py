"""The table of strategies in docs/operating.md, from what they say of themselves: ``make strategies`` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

from edgefl.algorithms import algorithm
from edgefl_server.aggregation import STRATEGIES, Strategy
from edgefl_server.aggregation.hyperparameters import settings_of
from edgefl_server.option_names import option_of

__all__ = ["table", "with_table"]

_START, _END = "<!-- made by `make strategies` -->\n", "<!-- end -->\n"


def table() -> str:
    """The strategies that are edgefl's own, a row each, as Markdown."""
    rows = [
        _row(name, STRATEGIES.get(name))
        for name in STRATEGIES.names()
        if STRATEGIES.get(name).__module__.startswith("edgefl_server.")
    ]
    return "\n".join(("| `--strategy` | for | options | the model file |", "|---|---|---|---|", *rows, ""))


def with_table(text: str) -> str:
    """A page with the table as it has to be, between its marks."""
    before, _, rest = text.partition(_START)
    return f"{before}{_START}{table()}{_END}{rest.partition(_END)[2]}"


def _row(name: str, strategy: type[Strategy]) -> str:
    options = [f"`{option_of(each.name)}`, {each.table or each.help}" for each in settings_of(strategy)]
    needs = algorithm(strategy.algorithm)
    file = f"`--algorithm {needs.name}`" if needs.name else "any"
    if needs.plain_sgd:
        file += ", plain SGD with a constant learning rate"
    if strategy.model:
        file += f"; {strategy.model}"
    return f"| `{name}` | {strategy.summary} | {'; '.join(options)} | {file} |".replace("|  |", "| |")


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")
