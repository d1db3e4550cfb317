"""What the documentation says can be pasted, block after block; what it names is there."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from edgefl.parts import VERBS, load
from edgefl_simulation import History
from pasted_page import blocks
from server_process import edgefl

PASTED = Path(__file__).parents[1] / "pasted_page.py"

ROOT = Path(__file__).parents[2]
TESTED_ELSEWHERE = {"docs/training.md"}  # by the trainer's tests, with the model and the data that it speaks of
LONG = {
    "docs/coming-from.md",
    "docs/converting.md",
    "docs/evaluating.md",
    "docs/federated-statistics.md",
    "docs/fine-tuning.md",
    "docs/getting-started-keras.md",
    "docs/getting-started-researcher.md",
    "docs/lowerings.md",
    "docs/operating.md",
    "docs/profiles.md",
    "docs/simulating.md",
}
ALL_PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = {"python", "sh"}
SHOWN = {"text", "ini", "toml", "python fragment"}
"""Output, messages, files of other programs, and parts of programs that are not there as a whole."""
TYPED_ELSEWHERE = {"sh checkout", "sh elsewhere"}
"""Commands that need the repository and what it installs, or other machines, rights and certificates."""


def pages() -> Iterator[Any]:
    for page in ALL_PAGES:
        name = page.relative_to(ROOT).as_posix()
        if name not in TESTED_ELSEWHERE and RUN & {block.language for block in blocks(page)}:
            yield pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])


@pytest.mark.parametrize("page", pages())
def test_a_page_can_be_pasted_block_after_block_and_runs(page: str, tmp_path: Path) -> None:
    run([sys.executable, PASTED, ROOT / page], tmp_path)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path) -> None:
    """One that says nothing would be run by nobody, and neither would one that is only indented."""
    unknown = [
        (block.line, block.language)
        for block in blocks(page)
        if block.language not in RUN | SHOWN | TYPED_ELSEWHERE
        and not re.fullmatch(r"toml [\w-]+\.toml", block.language)
    ]
    assert unknown == []
    outside = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^\n    \S.*$", outside, re.MULTILINE) == []


def typed_elsewhere() -> Iterator[Any]:
    for page in ALL_PAGES:
        for block in blocks(page):
            if block.language in TYPED_ELSEWHERE:
                for line in block.replace("\\\n", " ").splitlines():
                    if words := line.partition("#")[0].split():
                        yield pytest.param(words, id=f"{page.name}: {' '.join(words)[:60]}")


@pytest.mark.parametrize("words", typed_elsewhere())
def test_what_is_typed_elsewhere_names_targets_files_and_options_that_are_there(words: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if "make" in words:
        wanted = [word for word in words[words.index("make") + 1 :] if re.fullmatch("[a-z-]+", word)]
        assert set(wanted) <= set(targets)
    assert [word for word in words if word.startswith("benchmarks/") and not (ROOT / word).exists()] == []
    # Behind assignments; as an argument it is a folder, a database or a user.
    place = next((index for index, word in enumerate(words) if not re.match(r"[A-Z_]+=", word)), 0)
    if Path(words[place]).name != "edgefl":
        return
    verb = VERBS[words[place + 1]]
    command = getattr(load(verb.part), verb.attribute)
    if isinstance(command, typer.Typer):
        found: Any = typer.main.get_command(command)
        at = place + 2
        while hasattr(found, "commands"):  # a verb may have verbs of its own
            found, at = found.commands[words[at]], at + 1
        known = found.params
    else:
        single = typer.Typer(add_completion=False)
        single.command()(command)
        known = typer.main.get_command(single).params
    options = {option for each in known for option in (*each.opts, *each.secondary_opts)}
    assert [word for word in words[place:] if word.startswith("-") and word not in options] == []


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


def run(command: list[Any], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    with (folder / "printed.txt").open("w+") as printed:  # no pipe, which a server in the background would keep open
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=printed, stderr=printed, start_new_session=True
        )
        try:
            code = process.wait(600)
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
