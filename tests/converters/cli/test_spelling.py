"""Pure code names settings as Python does; only the command line knows its options."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

import edgefl_converters
from edgefl.errors import UnsupportedModelError
from edgefl_converters.cli.export_verb import export
from edgefl_converters.cli.spelling import SETTINGS, as_options, option_of, spelled_as_options
from edgefl_converters.cli.verbs import convert, verify

PACKAGE = Path(edgefl_converters.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z]")


def options():
    """Every option of the converter's verbs."""
    app = typer.Typer()
    for verb in (convert, verify, export):
        app.command()(verb)
    found = [option for command in typer.main.get_command(app).commands.values() for option in command.params]
    return {each for option in found for each in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("Leave `micro_batch` out.", "Leave --micro-batch out."),
        ("`lora_targets` 'x' matches nothing.", "--lora-target 'x' matches nothing."),
        ("Convert with `target='litert-2'`.", "Convert with --target litert-2."),
        ("For example `input_shape=(100, 6)`.", "For example --input-shape 100,6."),
        ("For example `input_shape=(100,)`.", "For example --input-shape 100."),
        ("For example `lora_rank=4`.", "For example --lora-rank 4."),
        ("Or `biases_only=True` and `verify=False`.", "Or --biases-only and --no-verify."),
        ("Made by `edgefl convert` with `get_config` and `without_passes`.",) * 2,
        ("Somebody's own `target=any thing`.",) * 2,
        ("What a user called micro_batch, or `dense`.",) * 2,
    ],
)
def test_what_stands_in_backticks_and_is_a_setting_becomes_an_option(text, typed):
    assert as_options(text) == typed


def test_every_setting_has_an_option_of_some_verb():
    assert {option_of(name) for name in SETTINGS} <= options()
    assert "--micro-batch" in options()


def test_an_error_is_spelled_as_it_passes_and_stays_the_same_error():
    with pytest.raises(UnsupportedModelError) as caught, spelled_as_options():
        raise UnsupportedModelError("No `micro_batch`.", hint="Leave `micro_batch` out.", layer="norm", ops=["Mean"])

    assert (caught.value.message, caught.value.hint) == ("No --micro-batch.", "Leave --micro-batch out.")
    assert str(caught.value) == "No --micro-batch. Leave --micro-batch out."
    assert (caught.value.layer, caught.value.ops) == ("norm", ("Mean",))


def test_nothing_but_the_command_line_spells_an_option():
    spelled = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.search(node.value)
    ]
    assert spelled == []


def test_what_pure_code_recommends_can_be_typed():
    """Every setting with a value in a text of the converter is one that `as_options` understands."""
    recommended = {
        found[0]
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "cli"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in re.finditer(r"(?<!`)`\w+=('[^`]+'|True|False|\d+)`(?!`)", node.value)
    }
    assert recommended
    assert [each for each in recommended if not as_options(each).startswith("--")] == []
