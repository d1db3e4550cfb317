"""``edgefl run create … --rounds +N``: more rounds for the run that the same line has created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from edgefl.errors import InvalidSettingError, RunError
from edgefl.hashing import sha256
from edgefl_server.aggregation import AUTO
from edgefl_server.operator_client import OperatorClient, run_path
from edgefl_server.option_names import option_of

__all__ = ["More", "continue_run", "is_typed", "number_of_rounds"]


class More(int):
    """Rounds beyond those that a run was to have."""

    def __str__(self) -> str:
        return f"+{int(self)}"


def is_typed(context: typer.Context, option: str) -> bool:
    """Whether somebody has given an option, be it its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def number_of_rounds(text: str) -> int:
    """Reads ``--rounds``: ``20``, or ``+10`` for so many more."""
    kind = More if str(text).startswith("+") else int
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"expected a whole number, or +N for N more rounds, got {text!r:.80}") from None


def continue_run(
    client: OperatorClient, model: bytes, population: str, name: str, rounds: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Gives a run more rounds.

    Args:
        client: of its server.
        model: the file that it was created from.
        population: whose devices train.
        name: of the run; empty: the newest of this population with this model.
        rounds: how many more.
        given: the settings that were typed, which have to be those of the run.

    Returns:
        The run's status.

    Raises:
        RunError: there is no such run.
        InvalidSettingError: it has another model, population or setting, or cannot go on.
    """
    digest = sha256(model)
    status = client.get(run_path(name)) if name else _newest(client, digest, population)
    settings = status["settings"]
    # What was chosen automatically stays chosen.
    typed = {each: value for each, value in given.items() if each in settings and value != AUTO}
    other = {
        "the model": (digest, status["model_hash"]),
        "--population": (population, status["population"]),
        **{option_of(each): (value, settings[each]) for each, value in typed.items()},
    }
    for what, (wanted, has) in other.items():
        if wanted != has:
            said = f"{what} of another file" if what == "the model" else f"{what} {wanted}, and it has {has}"
            raise InvalidSettingError(
                f"Run {status['run']} goes on as it is; got {said}.",
                hint="Leave the option out, or create a new run: --rounds without +.",
            )
    return client.post(f"{run_path(status['run'], 'continue')}?rounds={int(rounds)}")


def _newest(client: OperatorClient, digest: str, population: str) -> dict[str, Any]:
    for entry in reversed(client.get("/v1/runs")["runs"]):
        if entry["population"] == population:
            status = client.get(run_path(entry["run"]))
            if status.get("model_hash") == digest:
                return status
    raise RunError(
        f"There is no run in {population} with this model that could go on.",
        hint="`edgefl run list` names all runs; --rounds without + creates one.",
    )
