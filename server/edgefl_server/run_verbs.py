"""``edgefl run pause``, ``resume``, ``history``, ``diff``, ``rollback`` and ``log``: what runs came through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edgefl.atomic import write_text
from edgefl.cli.output import Format, FormatOption, emit
from edgefl.errors import InvalidSettingError, storage_error
from edgefl_server import run_text
from edgefl_server.dates import date_and_time
from edgefl_server.operator_client import OperatorClient, run_path
from edgefl_server.state_folder import SHOWN

__all__ = ["RunArgument", "ServerOption", "StateOption", "add_verbs", "read_vector"]

StateOption = Annotated[
    Path | None, typer.Option("--state", help="State folder of a server on this machine.", show_default=SHOWN)
]
ServerOption = Annotated[
    str | None, typer.Option("--server", help="URL of a server; the key is taken from EDGEFL_OPERATOR_KEY.")
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id or name.")]


def add_verbs(run: typer.Typer) -> None:
    """Adds them to ``edgefl run``."""
    for verb in (pause, resume, history, diff, rollback, log):
        run.command()(verb)


def pause(
    run_id: RunArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Pause a run: devices get no new task of it, deadlines stand still; what they are at is still taken."""
    result = OperatorClient.find(state, server).post(run_path(run_id, "pause"))
    emit(result, format, lambda: run_text.status(result))


def resume(
    run_id: RunArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """Let a paused run go on."""
    result = OperatorClient.find(state, server).post(run_path(run_id, "resume"))
    emit(result, format, lambda: run_text.status(result))


def history(
    run_id: RunArgument, state: StateOption = None, server: ServerOption = None, format: FormatOption = Format.text
) -> None:
    """List the versions of a run's weights: which came from which, by how many devices, examples and bytes."""
    result = OperatorClient.find(state, server).get(run_path(run_id, "history"))
    emit(result, format, lambda: "\n".join(_version_line(each) for each in result["versions"]))


def diff(
    run_id: RunArgument,
    before: Annotated[int, typer.Argument(metavar="FROM", help="A version of the weights.", min=0)],
    after: Annotated[int, typer.Argument(metavar="TO", help="Another one.", min=0)],
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Say how two versions of a run's weights differ, layer by layer."""
    path = f"{run_path(run_id, 'diff')}?before={before}&after={after}"
    result = OperatorClient.find(state, server).get(path)
    emit(result, format, lambda: _differences(result))


def rollback(
    run_id: RunArgument,
    version: Annotated[int, typer.Option("--to", help="The version to go on from; see `edgefl run history`.", min=0)],
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Let a run go on from an earlier version; its open round begins anew."""
    result = OperatorClient.find(state, server).post(f"{run_path(run_id, 'rollback')}?version={version}")
    emit(result, format, lambda: run_text.status(result))


def log(
    run_id: RunArgument,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A .json file for it.")] = None,
    state: StateOption = None,
    server: ServerOption = None,
    format: FormatOption = Format.text,
) -> None:
    """Tell which update began from which version and was merged in which round; `replay` makes the weights of it."""
    result = OperatorClient.find(state, server).get(run_path(run_id, "log"))
    if output is not None:
        write_text(output, json.dumps(result) + "\n")
    emit(result, format, lambda: "\n".join(_fold_lines(result)))


def read_vector(path: Path) -> bytes:
    """Reads weights from a file, as little-endian float32.

    Raises:
        StorageError: it cannot be read.
        InvalidSettingError: it holds no such vector.
    """
    try:
        vector = np.load(path, allow_pickle=False)
    except OSError as error:
        raise storage_error(error, "read", path) from error
    except ValueError as error:
        raise InvalidSettingError(f"--weights expects a .npy file, got {path}: {error}") from error
    if not isinstance(vector, np.ndarray) or vector.ndim != 1 or vector.dtype != np.float32:
        got = f"{vector.dtype} of shape {vector.shape}" if isinstance(vector, np.ndarray) else "several arrays"
        raise InvalidSettingError(f"--weights expects one float32 vector, got {got} in {path}.")
    return vector.astype("<f4").tobytes()


def _version_line(entry: dict[str, Any]) -> str:
    parts = [f"version {entry['version']:>4}"]
    if entry["by"] == "start":
        parts.append("the initial weights")
    elif entry["by"] == "rollback":
        parts.append(f"back to version {entry['parent']}")
    else:
        parts.append(f"from {entry['parent']} by round {entry['round']}")
        parts += [
            run_text.counted(entry[name], noun)
            for name, noun in (
                ("outcomes", "update"),
                ("devices", "device"),
                ("num_examples", "example"),
            )
            if entry[name] is not None
        ]
        parts += [
            f"{run_text.counted(entry[f'bytes_{way}'], 'byte')} {way}"
            for way in ("up", "down")
            if entry[f"bytes_{way}"] is not None
        ]
        if entry["staleness"]:
            parts.append(f"{entry['staleness']:.1f} versions behind")
    for where, name in (("devices", "evaluated"), ("the server", "central")):
        if values := entry.get(name):
            parts.append(f"on {where} " + " ".join(f"{metric} {value:.4f}" for metric, value in values.items()))
    if entry["made_at"] is not None:
        parts.append(f"{date_and_time(entry['made_at'])} UTC")
    return ", ".join([*parts, entry["weights_hash"][:12]])


def _differences(result: dict[str, Any]) -> str:
    rows = [("all", result), *((each["parameter"], each) for each in result["parameters"])]
    width = max(len(name) for name, _ in rows)
    lines = [f"{'':<{width}}  {'norm':>12}  {'difference':>12}  {'share':>8}  {'largest':>12}"]
    for name, each in rows:
        share = f"{each['difference'] / each['norm']:.2%}" if each["norm"] else "-"
        lines.append(
            f"{name:<{width}}  {each['norm']:>12.6g}  {each['difference']:>12.6g}  {share:>8}  {each['largest']:>12.6g}"
        )
    return "\n".join(lines)


def _fold_lines(result: dict[str, Any]) -> list[str]:
    lines = []
    for fold in result["folds"]:
        lines.append(f"round {fold['number']}: version {fold['version']} becomes {fold['makes']}")
        lines += [f"  {each['accepted']:>6}  {each['task_id']} from {each['version']}" for each in fold["updates"]]
    return lines or ["nothing is merged yet"]
