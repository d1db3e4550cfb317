"""The parts of edgefl by name: which verb and which public name live where, and which extra brings what they need.

The shared core imports no part; this table is all that it knows of them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from edgefl.errors import MissingDependencyError

__all__ = ["FACADE", "MEASURING", "VERBS", "Verb", "install_line", "load", "needing"]


@dataclass(frozen=True)
class Part:
    """A module of a part, and the extra whose dependencies it needs.

    Attributes:
        module: its name.
        extra: of the distribution; empty: none.
        imports: a package of the extra that the module itself imports; empty: such are imported when it is used.
    """

    module: str
    extra: str
    imports: str = ""

    def is_there(self) -> bool:
        """Whether the module can be imported here, which is found out without importing it."""
        return not self.imports or importlib.util.find_spec(self.imports) is not None


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        part: whose module has it.
        attribute: of that module: a function with typer's annotations, or a `typer.Typer`.
        summary: in one line.
        panel: under which heading of ``edgefl --help`` it stands.
    """

    part: Part
    attribute: str
    summary: str
    panel: str


_CONVERT = Part("edgefl_converters.cli.verbs", "convert")

_MODELS, _DEVICES, _LAPTOP = "Models", "Devices and their server", "A fleet on this machine"

VERBS = {
    "convert": Verb(_CONVERT, "convert", "Turn a Keras model into a trainable .tflite file.", _MODELS),
    "inspect": Verb(Part("edgefl.cli.inspect", ""), "inspect", "Say what is in a model file.", _MODELS),
    "verify": Verb(_CONVERT, "verify", "Train a model file beside its Keras model and compare.", _MODELS),
    "evaluate": Verb(
        Part("edgefl_device_runtime.agent.evaluate_verb", "device"),
        "evaluate",
        "Measure loss and metrics of a model file, or of trained weights, on data.",
        _MODELS,
    ),
    "export": Verb(
        Part("edgefl_converters.cli.export_verb", "convert"),
        "export",
        "Turn trained weights back into a .keras or an inference .tflite file.",
        _MODELS,
    ),
    "device": Verb(
        Part("edgefl_device_runtime.agent.cli", "device"), "device", "Take part with this device.", _DEVICES
    ),
    "server": Verb(Part("edgefl_server.cli", "server"), "server", "Hand out work and merge what comes back.", _DEVICES),
    "run": Verb(Part("edgefl_server.cli", "server"), "run", "Create, watch and stop training runs.", _DEVICES),
    "new": Verb(Part("edgefl.cli.new_project", ""), "new", "Write a small project to begin with.", _LAPTOP),
    "simulate": Verb(
        Part("edgefl_simulation.cli", "simulate"),
        "simulate",
        "Train with a fleet of emulated devices on this machine.",
        _LAPTOP,
    ),
    "data": Verb(
        Part("edgefl_simulation.data_verbs", "simulate"),
        "data",
        "Divide data among devices, see who holds what, and sum it up.",
        _LAPTOP,
    ),
    "report": Verb(
        Part("edgefl_simulation.report.verb", "simulate"), "report", "Make a page of simulations side by side.", _LAPTOP
    ),
    "compare": Verb(
        Part("edgefl_simulation.cli_compare", "simulate"),
        "compare_runs",
        "Compare simulations by what they cost.",
        _LAPTOP,
    ),
    "profiles": Verb(
        Part("edgefl_simulation.cli_profiles", "simulate"),
        "profiles",
        "Say what emulated devices can be like.",
        _LAPTOP,
    ),
}

MEASURING = Part("edgefl_device_runtime.measuring", "device")
"""The part that runs a model file on the installed interpreters to measure it."""

_SIMULATE = Part("edgefl_simulation", "simulate", imports="urllib3")

FACADE = {
    "convert": Part("edgefl_converters", "convert"),
    "verify": Part("edgefl_converters", "convert"),
    "export": Part("edgefl_converters", "convert"),
    "FineTuning": Part("edgefl_converters", "convert"),
    "load_model": Part("edgefl_converters", "convert"),
    "TrainableModel": Part("edgefl_device_runtime.training", "device"),
    "Device": Part("edgefl_device_runtime.agent", "device", imports="urllib3"),
    "simulate": _SIMULATE,
    "federated_statistics": _SIMULATE,
    "learning": _SIMULATE,
    "History": _SIMULATE,
    "Parameter": Part("edgefl.layout", ""),
    "ParameterLayout": Part("edgefl.layout", ""),
    "ModelManifest": Part("edgefl.manifest", ""),
}


def load(part: Part) -> ModuleType:
    """Imports a part.

    Raises:
        MissingDependencyError: a package it needs is not installed; the hint is the line that installs it.
    """
    with needing(part):
        return importlib.import_module(part.module)


@contextlib.contextmanager
def needing(part: Part) -> Iterator[None]:
    """Names the install line around what may import what is not installed: also a verb imports when it is used.

    Raises:
        MissingDependencyError: a package is not installed; the hint is the line that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not part.extra or missing.startswith("edgefl"):
            raise
        raise MissingDependencyError(
            f"This needs the package {missing!r}, which is not installed here.",
            hint=f"Install it with: {install_line(part.extra)}",
        ) from error


def install_line(extra: str) -> str:
    """The shell line that adds an extra to the environment that runs this process.

    Outside an environment, where Raspberry Pi OS and Debian forbid pip (PEP 668), the line makes one first. Until a
    release is published the wheel comes from the folder that `make dist` fills; EDGEFL_WHEELS names another.
    """
    python, first = sys.executable, ""
    if sys.prefix == sys.base_prefix:
        python, first = "edgefl-env/bin/python", f"{sys.executable} -m venv edgefl-env && "
    return f'{first}{python} -m pip install --find-links "${{EDGEFL_WHEELS:-dist}}" "edgefl-toolkit[{extra}]"'
