"""Which module imports which, as far as import-linter (pyproject.toml) does not look: circles, and what comes along."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGES = {
    name: REPOSITORY / folder / name
    for folder, name in (
        ("", "edgefl"),
        ("converters", "edgefl_converters"),
        ("device_runtime", "edgefl_device_runtime"),
        ("server", "edgefl_server"),
        ("simulation", "edgefl_simulation"),
    )
}
LONGEST_MODULE = 400
HEAVY = {"tensorflow", "keras", "tflite_runtime", "ai_edge_litert", "urllib3", "psutil"}
HEAVY |= {"fastapi", "starlette", "pydantic", "uvicorn", "sqlalchemy", "alembic", "typer", "rich", "cryptography"}


def modules(packages: dict[str, Path]) -> dict[str, ast.Module]:
    """The source of all modules by name; what flatc generated is left out."""
    found = {}
    for package, folder in packages.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            if "generated" not in parts:
                found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    return found


def imported(name: str, source: ast.Module, known: set[str]) -> set[str]:
    """The modules of ours that a module imports anywhere: at the top, for type checkers, in a function."""
    words: set[str] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            words |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relative to itself"
            assert node.module is not None
            # `from package import name`: of the module, where the name is one, and of the package otherwise.
            words |= {each if (each := f"{node.module}.{alias.name}") in known else node.module for alias in node.names}
    return words & known


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """For each set of modules that import each other, one circle through it, sorted."""
    left = dict(arrows)
    while free := [name for name, others in left.items() if not others & left.keys()]:  # imports nothing that is left
        for name in free:
            del left[name]
    found = []
    while left:
        path = [min(left)]
        while (step := min(left[path[-1]] & left.keys(), default=None)) not in path and step is not None:
            path.append(step)
        if step is not None:
            found.append(sorted(path[path.index(step) :]))
        for name in path:
            left.pop(name)
    return found


def arrows_of(packages: dict[str, Path]) -> dict[str, set[str]]:
    sources = modules(packages)
    return {name: imported(name, source, set(sources)) for name, source in sources.items()}


def test_no_modules_import_each_other_in_a_circle_also_not_for_type_checkers_or_inside_functions() -> None:
    arrows = arrows_of(PACKAGES)
    assert len(arrows) > 300
    assert circles(arrows) == []


@pytest.mark.parametrize(
    "back",
    [
        "import room.first",
        "from room import first",
        "from room.first import First",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from room.first import First",
        "def late():\n    from room.first import First",
    ],
)
def test_a_circle_is_found_wherever_in_a_module_the_import_stands(tmp_path: Path, back: str) -> None:
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "first.py").write_text("from room.second import Second")
    (tmp_path / "second.py").write_text(back)
    (tmp_path / "third.py").write_text("import room.first")
    assert circles(arrows_of({"room": tmp_path})) == [["room.first", "room.second"]]


def test_a_module_that_imports_the_package_that_imports_it_is_a_circle(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("from room.first import First")
    (tmp_path / "first.py").write_text("from room import Second")
    assert circles(arrows_of({"room": tmp_path})) == [["room", "room.first"]]


def test_no_module_imports_the_facade() -> None:
    # The facade names what the parts offer, so it lies above them: see the exception in pyproject.toml.
    assert [name for name, others in arrows_of(PACKAGES).items() if "edgefl" in others] == []


def test_no_module_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(REPOSITORY)): lines
        for folder in PACKAGES.values()
        for path in folder.rglob("*.py")
        if "generated" not in path.parts and (lines := len(path.read_text().splitlines())) > LONGEST_MODULE
    }
    assert long == {}


def brought_by(statement: str) -> set[str]:
    """The packages that a statement imports in a process of its own."""
    program = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def importing_all(packages: dict[str, Path], *, without: tuple[str, ...] = ()) -> str:
    return "\n".join(f"import {name}" for name in modules(packages) if not name.startswith(without))


def test_importing_edgefl_imports_neither_numpy_nor_a_part() -> None:
    assert not brought_by("import edgefl") & {*HEAVY, "numpy", "flatbuffers", *PACKAGES.keys() - {"edgefl"}}


def test_no_module_of_the_shared_core_but_the_command_line_imports_anything_heavy() -> None:
    core = {"edgefl": PACKAGES["edgefl"]}
    brought = brought_by(importing_all(core, without=("edgefl.cli", "edgefl.__main__")))
    assert not brought & {*HEAVY, *PACKAGES.keys() - {"edgefl"}}


@pytest.mark.parametrize("room", ["training", "tasks", "measuring"])
def test_importing_what_trains_imports_numpy_and_nothing_heavy(room: str) -> None:
    folder = {f"edgefl_device_runtime.{room}": PACKAGES["edgefl_device_runtime"] / room}
    brought = brought_by(importing_all(folder))
    assert {"numpy", "edgefl_device_runtime"} <= brought
    assert not brought & {*HEAVY, *PACKAGES.keys() - {"edgefl", "edgefl_device_runtime"}}


def test_importing_aggregation_imports_numpy_and_nothing_heavy() -> None:
    folder = {"edgefl_server.aggregation": PACKAGES["edgefl_server"] / "aggregation"}
    brought = brought_by(importing_all(folder))
    assert {"numpy", "edgefl_server"} <= brought
    assert not brought & {*HEAVY, *PACKAGES.keys() - {"edgefl", "edgefl_server"}}


def test_importing_the_agent_imports_nothing_heavy_but_its_http_client() -> None:
    brought = brought_by("import edgefl_device_runtime.agent")
    assert not brought & {*HEAVY - {"urllib3"}, *PACKAGES.keys() - {"edgefl", "edgefl_device_runtime"}}
