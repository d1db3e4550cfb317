"""`edgefl new`: what it writes, and what it refuses; tests/end_to_end/test_documentation.py runs what it wrote."""

import ast
import json
import re
from pathlib import Path

import pytest

from server_process import edgefl


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_project_is_a_model_data_and_a_page_with_the_commands_that_it_prints(tmp_path: Path) -> None:
    done = edgefl("new", "my-pumps", "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["files"] == [".gitignore", "README.md", "data.py", "model.py"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my-pumps"]
    readme = (tmp_path / "my-pumps" / "README.md").read_text()
    assert len(document["commands"]) == 3
    assert all(f"```sh\n{block}\n```" in readme for block in document["commands"])
    for word, block in zip(
        ("edgefl simulate", "edgefl server start", "edgefl device run"), document["commands"], strict=True
    ):
        assert word in block
    assert "--population my-pumps" in readme
    assert "Put your own data in" in readme
    for name in ("model.py", "data.py"):
        text = (tmp_path / "my-pumps" / name).read_text()
        assert ast.get_docstring(ast.parse(text))
        assert not re.search(r"\$[a-z{]", text)
    assert 'name="my_pumps"' in (tmp_path / "my-pumps" / "model.py").read_text()


def test_what_is_to_be_typed_next_is_printed_at_80_columns() -> None:
    done = edgefl("new", "pumps")
    assert "cd pumps\n    python data.py\n    edgefl simulate model:build" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100


@pytest.mark.parametrize("name", ["", "2pumps", "my pumps", "../pumps", "a/b", "pümps", ".pumps", "a" * 65, "pumps\n"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    done = edgefl("new", "--", name)
    assert done.returncode == 4, done
    assert "Expected a name of letters, digits, - and _" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "dead link"])
def test_what_is_there_already_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "pumps"
    {
        "folder": there.mkdir,
        "file": lambda: there.write_text("dear"),
        "dead link": lambda: there.symlink_to("nowhere"),
    }[kind]()
    done = edgefl("new", "pumps")
    assert done.returncode == 4
    assert "pumps is there already" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["pumps"]


def test_nothing_is_left_of_a_project_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgefl.cli.new_project.write_text", full)
    done = edgefl("new", "pumps")
    assert done.returncode == 52
    assert "No space left" in done.stderr
    assert list(tmp_path.iterdir()) == []
