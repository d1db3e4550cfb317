"""The Python in the documentation runs, block after block, as a reader would paste it; so do blocks marked sh."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl_simulation import History
from server_process import edgefl

ROOT = Path(__file__).parents[2]
TESTED_ELSEWHERE = {"docs/training.md"}  # by the trainer's tests, with the model and the data that it speaks of
PAGES = sorted(
    page.relative_to(ROOT).as_posix()
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if "```python" in page.read_text() and page.relative_to(ROOT).as_posix() not in TESTED_ELSEWHERE
)


@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path) -> None:
    """The Python first: what is typed into a shell uses files that it leaves."""
    run([sys.executable, "-c", blocks(page, "python")], tmp_path)
    if commands := blocks(page, "sh"):
        run(["sh", "-e", "-c", commands], tmp_path)


def test_the_commands_of_a_new_project_run_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They simulate a fleet, and train with a server and devices, as its README has them."""
    monkeypatch.chdir(tmp_path)
    made = edgefl("new", "pumps", "--format", "json")
    folder = tmp_path / "pumps"
    run(["sh", "-e", "-c", "\n".join(json.loads(made.stdout)["commands"])], folder)
    history = History.load(folder / "simulated")
    assert len(history.rounds) == 15
    assert history.final["accuracy"] > history.initial["central"]["accuracy"] + 0.2
    assert (folder / "report.html").stat().st_size > 50_000
    trained = np.load(folder / "trained.npy")
    assert trained.shape == history.weights.shape
    assert not np.array_equal(trained, history.weights)
    assert (folder / "trained.keras").exists()


def blocks(page: str, language: str) -> str:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return "\n".join(found)


def run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    with (folder / "printed.txt").open("w+") as printed:  # no pipe, which a server in the background would keep open
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            code = process.wait(300)
        finally:
            with contextlib.suppress(ProcessLookupError):  # whoever has pasted a page that failed still has a server
                os.killpg(process.pid, signal.SIGKILL)
    assert code == 0, (folder / "printed.txt").read_text()


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_test_that_the_hardening_page_promises_exists() -> None:
    folder, named = "", []
    for line in (ROOT / "docs" / "hardening.md").read_text().splitlines():
        if line.startswith("## "):
            folder = {"A device": "device_runtime/agent/"}.get(line[3:11], "server/")
        named += [(name if name.startswith("tests/") else f"tests/{folder}{name}") for name in _tests_in(line)]
    assert len(named) > 60
    for file, _, name in (each.partition("::") for each in named):
        assert f"def {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def _tests_in(line: str) -> list[str]:
    return re.findall(r"`([\w/.]+\.py::\w+)`", line)


PARTS = ("converters", "device_runtime", "server", "simulation")
FOLDERS = {"edgefl": ROOT / "edgefl"} | {f"edgefl_{part}": ROOT / part / f"edgefl_{part}" for part in PARTS}
GROUPS = {"edgefl.strategies", "edgefl.codecs", "edgefl.schedules", "edgefl.passes", "edgefl.partitioners"}


def test_every_module_that_a_page_names_exists_and_has_what_is_named_in_it() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for named in set(re.findall(r"`(edgefl(?:_\w+)?(?:\.\w+)+)[`(]", page.read_text())) - GROUPS:
            package, *rest = named.split(".")
            place = FOLDERS[package]
            while rest and ((place / rest[0]).is_dir() or (place / f"{rest[0]}.py").is_file()):
                place = place / rest.pop(0)
            source = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            known = source.read_text() + (FOLDERS["edgefl"] / "parts.py").read_text()
            assert len(rest) <= 1, f"{page.name} names {named}, and there is no such module"
            assert not rest or re.search(rf"\b{rest[0]}\b", known), f"{page.name} names {named}, which is not there"


def test_every_file_of_the_repository_that_a_page_names_exists() -> None:
    parts = "tests|docs|server|converters|device_runtime|simulation|benchmarks|examples"
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for named in set(re.findall(rf"`((?:{parts})/[\w./-]+)`", page.read_text())):
            assert (ROOT / named).exists(), f"{page.name} names {named}, which is not there"
