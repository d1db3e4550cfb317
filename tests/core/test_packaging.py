"""What the distribution says of itself, and what is in it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("hatchling", reason="the build backend is not installed here: make setup")

ROOT = Path(__file__).parents[2]
ADDRESS = "https://git.example.org/people/edgefl"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(kind: str, source: Path, out: Path, repository: str) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(out)]
    done = subprocess.run(
        command, cwd=source, capture_output=True, text=True, env={**os.environ, "EDGEFL_REPOSITORY": repository}
    )
    assert done.returncode == 0, done.stderr
    (made,) = [path for path in out.iterdir() if path.suffix == {"sdist": ".gz", "wheel": ".whl"}[kind]]
    return made


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, built where the repository's address is known."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build("sdist", ROOT, folder, ADDRESS)) as archive:
        archive.extractall(folder, filter="data")
    (inside,) = [path for path in folder.iterdir() if path.is_dir()]
    return inside


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel that is built from it, where nobody says the address again."""
    with zipfile.ZipFile(build("wheel", unpacked, tmp_path_factory.mktemp("wheel"), "")) as archive:
        yield archive


def metadata_of(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return message_from_string(wheel.read(name).decode())


def test_the_metadata_has_addresses_a_licence_expression_and_no_link_that_leads_nowhere(wheel: zipfile.ZipFile) -> None:
    metadata = metadata_of(wheel)
    assert metadata["License-Expression"] == "Apache-2.0"
    classifiers = metadata.get_all("Classifier") or []
    assert not [each for each in classifiers if each.startswith("License ::")]
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.13"} <= set(classifiers)
    urls = dict(each.split(", ") for each in metadata.get_all("Project-URL") or [])
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= set(urls)
    assert all(url.startswith(ADDRESS) for url in urls.values())
    links = re.findall(r"\]\(([^)\s]+)\)", metadata.get_payload())
    assert len(links) > 20
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_source_distribution_has_the_tests_and_all_that_they_read(unpacked: Path) -> None:
    for name in ("tests/core/test_packaging.py", "tests/golden/dropout.tflite", "docs/operating.md", "Makefile"):
        assert (unpacked / name).read_bytes() == (ROOT / name).read_bytes()
    tests = {path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py")}
    assert tests == {path.relative_to(unpacked) for path in (unpacked / "tests").rglob("test_*.py")}


def test_the_wheel_has_every_package_with_its_data_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name.partition("/")[0] for name in wheel.namelist()}
    parts = {"edgefl", "edgefl_converters", "edgefl_device_runtime", "edgefl_server", "edgefl_simulation"}
    assert {name for name in names if not name.endswith(".dist-info")} == parts
    assert {f"{part}/py.typed" for part in parts} <= set(wheel.namelist())
    needed = {"edgefl/cli/new_project/model.py.template", "edgefl_simulation/profiles/shipped/pi4.toml", *DASHBOARD}
    assert needed <= set(wheel.namelist())


DASHBOARD = [
    str(path.relative_to(ROOT / "server"))
    for folder in ("static", "templates")
    for path in (ROOT / "server/edgefl_server/dashboard" / folder).iterdir()
]


def test_without_an_address_none_is_made_up(hook: ModuleType) -> None:
    assert hook.urls("") == {}
    text = (
        "See [data](docs/data.md#tables), [docs/arm.md](docs/arm.md), [there](https://example.org) and [up](#use-it)."
    )
    assert hook.described(text, "") == (
        "See data (docs/data.md), docs/arm.md, [there](https://example.org) and [up](#use-it)."
    )


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://git.example.org/o/edgefl.git\n", "https://git.example.org/o/edgefl"),
        ("https://name:secret@git.example.org/o/edgefl", "https://git.example.org/o/edgefl"),
        ("git@git.example.org:o/edgefl.git", "https://git.example.org/o/edgefl"),
        ("ssh://git@git.example.org:2222/o/edgefl", "https://git.example.org/o/edgefl"),
        ("/srv/git/edgefl", ""),
        ("../edgefl", ""),
        ("file:///srv/edgefl", ""),
        ("", ""),
    ],
)
def test_a_remote_that_only_this_machine_knows_is_no_address(hook: ModuleType, remote: str, address: str) -> None:
    assert hook.public_address(remote) == address
