"""``edgefl device``: take part with this device."""

from __future__ import annotations

import contextlib
import ctypes
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgefl.cli.output import Format, FormatOption, emit, progress
from edgefl.errors import InvalidSettingError, StorageError
from edgefl.invitation import Invitation
from edgefl.native_stderr import native_stderr_held
from edgefl.targets import CHOICES
from edgefl_device_runtime.agent.device import Device
from edgefl_device_runtime.agent.local_data import Fit, check_data
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.status import status_of, status_text
from edgefl_device_runtime.agent.stopping import Stop, StopSignals
from edgefl_device_runtime.tasks import ALLOWED, MINIMUM_EXAMPLES

__all__ = ["device"]

device = typer.Typer(
    help="Take part with this device.",
    add_completion=False,
    no_args_is_help=True,
)

_WHERE = "Where to take part, the first time"
_WORK = "How to work"

DataOption = Annotated[str, typer.Option(help="An .npz file, a folder of .npy files, a .csv file, or module:function.")]
MinimumOption = Annotated[
    int,
    typer.Option(
        min=1,
        help="Decline tasks that would be done with fewer: one alone can be read from an update.",
        rich_help_panel=_WORK,
    ),
]
RuntimeOption = Annotated[
    str, typer.Option(help=f"The interpreter: auto, {', '.join(CHOICES)}.", rich_help_panel=_WORK)
]
StateOption = Annotated[Path, typer.Option(help="Folder for identity, cache and unsent outcomes; one per device.")]


_M_MMAP_THRESHOLD = -3


@device.command()
def run(
    data: DataOption,
    state: StateOption,
    server: Annotated[
        str, typer.Option(help="URL of the server; by default the one of last time.", rich_help_panel=_WHERE)
    ] = "",
    population: Annotated[
        str, typer.Option(help="Whose work to do; by default the one of last time.", rich_help_panel=_WHERE)
    ] = "",
    token: Annotated[
        str,
        typer.Option(
            envvar="EDGEFL_TOKEN", help="From the operator; needed the first time only.", rich_help_panel=_WHERE
        ),
    ] = "",
    invitation: Annotated[
        str,
        typer.Option(
            envvar="EDGEFL_INVITATION",
            help="From the operator: server, population, token, pins in one.",
            rich_help_panel=_WHERE,
        ),
    ] = "",
    certificate_pin: Annotated[
        str,
        typer.Option(
            help="SHA-256 of the server's certificate; this one and no other is accepted.", rich_help_panel=_WHERE
        ),
    ] = "",
    public_key_pin: Annotated[
        str,
        typer.Option(
            help="sha256//BASE64 of the server's public key; any certificate of this key is accepted.",
            rich_help_panel=_WHERE,
        ),
    ] = "",
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when no run is active any more.", rich_help_panel=_WORK)
    ] = False,
    minimum_examples: MinimumOption = MINIMUM_EXAMPLES,
    tasks: Annotated[
        str,
        typer.Option(
            help="What this device does, of train, evaluate, statistics; other tasks are declined.",
            rich_help_panel=_WORK,
        ),
    ] = ",".join(ALLOWED),
    threads: Annotated[
        str,
        typer.Option(
            help="Threads of the interpreter; auto measures once for each model which number is fastest.",
            rich_help_panel=_WORK,
        ),
    ] = "1",
    runtime: RuntimeOption = "auto",
    format: FormatOption = Format.text,
) -> None:
    """Poll a server for work, train on local data, send what was learned; until SIGTERM or Ctrl-C."""
    _return_freed_memory()
    _show_remarks()
    agent: Device | None = None
    signals = StopSignals()
    try:
        with signals:
            num_threads = _threads(threads)
            found = _enrolment(invitation, state)
            server = server or found.get("server") or ""
            population = population or found.get("population") or ""
            if not server or not population:
                raise InvalidSettingError(
                    f"Expected a server and a population, got {'no population' if server else 'no server'}.",
                    hint="Give --invitation, or --server, --population and --token; later starts remember them.",
                )
            # A pin belongs to the server that it came with.
            came = found if server == found.get("server") and not (certificate_pin or public_key_pin) else {}
            agent = Device(
                server,
                population,
                data,
                state,
                token=token or found.get("token"),
                certificate_pin=certificate_pin or came.get("certificate_pin"),
                public_key_pin=public_key_pin or came.get("public_key_pin"),
                next_pins=(came.get("next_certificate_pin"), came.get("next_public_key_pin")),
                num_threads=num_threads,
                runtime=runtime,
                minimum_examples=minimum_examples,
                tasks=[each.strip() for each in tasks.split(",") if each.strip()],
                report=progress,
                check=signals.check,
            )
            agent.run(until_idle=until_idle)
    except Stop:
        pass
    except Exception:
        if not signals.asked:  # else what the stop became on its way
            raise
    finally:
        if agent is not None:
            agent.close()  # another device may have the task in hand
    if signals.asked:
        progress("Stopped.")
    if agent is not None:
        with contextlib.suppress(StorageError):  # the work is done and sent, whoever reads of it
            emit(agent.summary.to_json(), format, lambda: str(agent.summary))


@device.command()
def check(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The .tflite file that the fleet is to train.")],
    data: DataOption,
    minimum_examples: MinimumOption = MINIMUM_EXAMPLES,
    runtime: RuntimeOption = "auto",
    format: FormatOption = Format.text,
) -> None:
    """Try whether data fits a model, by a few steps of training, before a round is spent on it; sends nothing."""
    _show_remarks()
    with native_stderr_held():
        found = check_data(model, data, minimum_examples=minimum_examples, runtime=runtime)
    emit({"model": str(model), "data": data, **asdict(found)}, format, lambda: _checked(model, data, found))


def _checked(model: Path, data: str, found: Fit) -> str:
    weightless = found.examples - found.counting
    arrays = [
        *(("input", *each) for each in found.inputs.items()),
        *(("target", *each) for each in found.targets.items()),
    ]
    return "\n".join(
        [
            f"{data} fits {model}: {found.examples:,} examples"
            + (f", {weightless:,} of weight 0" if weightless else ""),
            *(f"  {what} {name!r}: {dtype}, a row {shape}" for what, name, (dtype, shape) in arrays),
            f"  {found.runtime}: loss {found.loss:.4f} before training, {1000 * found.seconds_per_step:.1f} ms a step, "
            f"{found.steps_per_epoch:,} steps an epoch",
        ]
    )


@device.command()
def status(state: StateOption, format: FormatOption = Format.text) -> None:
    """Say who this device is, where it takes part, what it is doing, what it did, and what it still has to send."""
    if not (state / "identity.json").exists():
        raise InvalidSettingError(
            f"Expected a device's state folder, got {state} without an identity.",
            hint="`edgefl device run --state` makes one.",
        )
    result = status_of(StateFolder(state))
    emit(result, format, lambda: status_text(result))


def _threads(text: str) -> int | str:
    if text != "auto" and not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise typer.BadParameter(f"expected a whole number of at least 1 or auto, got {text!r}", param_hint="--threads")
    return text if text == "auto" else int(text)


def _enrolment(invitation: str, state: Path) -> dict[str, Any]:
    """Finds where to take part: the invitation says so, else the state folder remembers."""
    return asdict(Invitation.parse(invitation)) if invitation else StateFolder(state).enrolment()


def _show_remarks() -> None:
    """Shows what the trainer remarks (rows that are left out) as one line, without the place in the source."""
    warnings.showwarning = lambda message, *place: progress(f"Note: {message}")


def _return_freed_memory() -> None:
    """Keeps the GNU C library from putting large arrays into its heap, where the gaps that they leave stay.

    By default it does so for everything up to the size of the largest block ever freed: 5 MB for the FedAvg CNN.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library has no mallopt, and no need of it
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 17)
