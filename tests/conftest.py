"""Fixtures for every part: small converted models with what Keras computes with them, and the interpreters.

``NAME_file`` (for the names in `MODELS`) is the path of a model file; beside it lies ``NAME.npz``, written by
build_models.py (not for those made for federated algorithms). All that a session's tests need are built by one child
process when the first of them is asked for. Sessions to which `EDGEFL_TEST_MODELS` names one folder share it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from interpreters import NO_WHEEL, each_choice
from processor_time import ProcessorTime

if TYPE_CHECKING:
    from postgresql_cluster import PostgresqlCluster

# No test may depend on how fast the machine is, nor on chance.
hypothesis.settings.register_profile("edgefl", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("edgefl")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processor-time", action="store_true", help="say which tests took most of the processors")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--processor-time"):
        config.pluginmanager.register(ProcessorTime())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is known to be slow may take an hour; all others end after the time-out in pyproject.toml."""
    for item in items:
        if item.get_closest_marker("slow") or item.get_closest_marker("network"):
            item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts what a newer Python leaves out: `-q` says of skipped tests only how many there are in all."""
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum(NO_WHEEL in str(report.longrepr) for report in skipped)
    if count:
        terminalreporter.write_line(f"{count} skipped: {NO_WHEEL}")


MODELS = (
    *("mlp", "wide", "mlp_adam", "cnn", "conv1d", "dropout", "batch_norm", "batch_norm_first", "frozen", "two_inputs"),
    *("plain_sgd", "federated", "personal", "noisy", "normalised"),
)


@pytest.fixture(scope="session")
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the files of all models that the tests of this session name as fixtures."""
    given = os.environ.get("EDGEFL_TEST_MODELS")
    folder = Path(given) if given else tmp_path_factory.mktemp("models")
    folder.mkdir(exist_ok=True)
    asked = {name for item in request.session.items for name in _asked_by(item)}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = [name for name in MODELS if f"{name}_file" in asked and not (folder / f"{name}.tflite").exists()]
        if names:
            script = Path(__file__).with_name("build_models.py")
            done = subprocess.run([sys.executable, script, folder, *names], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return folder


def _asked_by(item: pytest.Item) -> Iterator[str]:
    """Fixtures that a test names, also as the parameter from which it takes ``NAME_file``."""
    yield from getattr(item, "fixturenames", ())
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    yield from (f"{value}_file" for value in parameters.values() if isinstance(value, str))


def _file_fixture(name: str) -> Callable[..., Path]:
    @pytest.fixture(scope="session", name=f"{name}_file")
    def file(model_folder: Path) -> Path:
        file = model_folder / f"{name}.tflite"
        assert file.exists(), file.with_suffix(".error").read_text()
        return file

    return file


for _name in MODELS:
    globals()[f"{_name}_file"] = _file_fixture(_name)


@pytest.fixture(params=each_choice())
def runtime(request: pytest.FixtureRequest) -> str:
    """Each of what a device may train with, in turn."""
    if request.param == "tflite-runtime" and "tensorflow" in sys.modules:
        # test_model.py runs what is skipped here in a process of its own.
        pytest.skip("tflite-runtime cannot share a process with TensorFlow")
    return str(request.param)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlCluster]:
    """A PostgreSQL server of the session's own, where PostgreSQL is installed."""
    from postgresql_cluster import PostgresqlCluster  # needs a part that not every environment has

    cluster = PostgresqlCluster()
    yield cluster
    cluster.remove()
