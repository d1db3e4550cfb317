"""What the pages name is there: files, functions, tests, and what links lead to."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
ARCHITECTURE, HARDENING = (DOCS / f"{name}.md" for name in ("architecture", "hardening"))
FOLDERS = ("edgefl", "converters", "device_runtime", "server", "simulation", "tests", "docs", "benchmarks", "examples")


@cache
def paths() -> frozenset[str]:
    """Files and folders of the repository, each with a slash before it, folders also with one behind."""
    found = {f"/{path.name}" for path in REPOSITORY.iterdir()}
    for folder in FOLDERS:
        for path in [REPOSITORY / folder, *(REPOSITORY / folder).rglob("*")]:
            if "__pycache__" not in path.parts:
                found.add(f"/{path.relative_to(REPOSITORY)}" + ("/" if path.is_dir() else ""))
    return frozenset(found)


def places(path: str) -> list[str]:
    """Where a path may lie that is written from any folder on: `storage/tasks.py`."""
    wanted = "/" + path.removeprefix("…/")
    return [each for each in paths() if each.endswith(wanted) or (each + "/").endswith(wanted + "/")]


@cache
def defined(file: str) -> frozenset[str]:
    """The names that a module defines or imports: functions, classes, their methods as `Class.method`, constants."""
    names = set()

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                look(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names.update(prefix + target.id for target in targets if isinstance(target, ast.Name))

    look(ast.parse((REPOSITORY / file.lstrip("/")).read_text()).body, "")
    return frozenset(names)


@cache
def all_defined() -> frozenset[str]:
    files = [path for path in paths() if path.endswith(".py") and "generated" not in path]
    return frozenset(name for path in files for name in defined(path))


def words(page: Path) -> list[str]:
    """What a page names in its text: the words between backticks, without the examples."""
    return re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```$", "", page.read_text()))


def is_path(word: str) -> bool:
    return re.fullmatch(r"[\w./…-]+(\.(py|md|toml|fbs)|/)", word) is not None


def missing_paths(text: list[str]) -> list[str]:
    return [word for word in text if is_path(word) and not places(word)]


def missing_names(text: str) -> list[str]:
    """Of `file.py`: `name`, `Class.method` and `name` in `file.py`, the names that the file does not define."""
    text = " ".join(text.split())
    pairs = [
        (file, name)
        for file, names in re.findall(r"`([\w/.…]+\.py)`: ((?:`[\w.]+`(?:, | and )?)+)", text)
        for name in re.findall(r"`([\w.]+)`", names)
        if not name.endswith(".py")
    ]
    pairs += [(file, name) for name, file in re.findall(r"`([\w.]+)` in `([\w/.…]+\.py)`", text)]
    assert pairs
    return [f"{file}: {name}" for file, name in pairs if not any(name in defined(place) for place in places(file))]


def test_every_file_and_folder_that_the_architecture_page_names_is_there() -> None:
    named = words(ARCHITECTURE)
    assert sum(map(is_path, named)) > 100
    assert missing_paths(named) == []


def test_every_function_that_the_architecture_page_places_in_a_file_is_defined_there() -> None:
    assert missing_names(ARCHITECTURE.read_text()) == []


def test_every_class_and_constant_that_the_architecture_page_names_is_defined_somewhere() -> None:
    named = [word for word in words(ARCHITECTURE) if re.fullmatch(r"[A-Z]\w+(\.\w+)*", word)]
    of_others = {"FedMedian"}  # the example's own
    assert [word for word in named if word not in all_defined() | of_others] == []


def test_a_name_that_is_gone_is_found() -> None:
    assert missing_paths(["edgefl/parts.py", "edgefl/utils.py", "edgefl/wire/", "edgefl/wires/"]) == [
        "edgefl/utils.py",
        "edgefl/wires/",
    ]
    text = "`parts.py`: `load`, `Verb.part` and `unload`; `no_such_function` in `edgefl/parts.py`"
    assert missing_names(text) == ["parts.py: unload", "edgefl/parts.py: no_such_function"]


def rows_of_the_hardening_page() -> list[tuple[str, str]]:
    """The tests, each with the folder that its section names."""
    found = []
    folder = ""
    for line in HARDENING.read_text().splitlines():
        if line.startswith("Tests are in `"):
            folder = line.split("`")[1]
        found += [(folder, word) for word in re.findall(r"`([\w/.]+::\w+)`", line)]
    return found


@pytest.mark.parametrize(("folder", "test"), rows_of_the_hardening_page())
def test_every_test_of_the_hardening_page_is_there(folder: str, test: str) -> None:
    file, name = test.split("::")
    place = REPOSITORY / file if file.startswith("tests/") else REPOSITORY / folder / file
    assert name in defined(str(place.relative_to(REPOSITORY)))


def test_every_row_of_the_hardening_page_has_a_test() -> None:
    rows = [line for line in HARDENING.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    assert [row for row in rows if "::" not in row and not row.endswith("| test |")] == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []
