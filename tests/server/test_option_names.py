"""Pure code names settings as Python does; whoever types a command reads its options."""

import pytest

from edgefl.algorithms import conversion_hint
from edgefl_server.option_names import converting_options


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        (conversion_hint("scaffold", "feddyn"), "--algorithm scaffold or --algorithm feddyn"),
        ("Convert the model again with `batch_size=8`.", "with --batch-size 8."),
        ("Convert the model again and keep less of it with `local`.", "with --local."),
    ],
)
def test_settings_of_a_conversion_become_the_options_of_edgefl_convert(text: str, typed: str) -> None:
    assert typed in converting_options(text)
    assert "`" not in converting_options(text)


@pytest.mark.parametrize("text", ["Make it again with `edgefl convert`.", "`momentum` is 0.9.", "batch_size", "`local"])
def test_all_else_stays(text: str) -> None:
    assert converting_options(text) == text
