"""A docstring says what something is or does; it does not begin in the middle of a sentence."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = [
    "edgefl",
    "converters/edgefl_converters",
    "device_runtime/edgefl_device_runtime",
    "server/edgefl_server",
    "simulation/edgefl_simulation",
]
MIDST = {"Of", "How", "What", "Where", "Which", "Who", "Why"}


def docstrings(source: ast.AST) -> Iterator[tuple[int, str]]:
    """Texts that stand alone, with their lines: of modules, classes and functions, and below constants and fields."""
    for node in ast.walk(source):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value


def fragments(source: str) -> list[int]:
    return [line for line, text in docstrings(ast.parse(source)) if text.split()[0].strip(",;:") in MIDST]


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_docstring_is_a_fragment(folder: str) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if "generated" not in path.parts
        for line in fragments(path.read_text())
    ]
    assert found == []


def test_a_fragment_is_found_wherever_it_stands() -> None:
    source = '''"""How to fold."""
LARGEST = 3
"""Of a fold."""


class Fold:
    """A fold."""

    def size(self):
        """What it holds."""
        return "What it holds."
'''
    assert fragments(source) == [1, 3, 10]
