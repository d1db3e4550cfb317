"""The notebooks run from the first cell to the last, as a reader runs them, and say nothing unless they are asked."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
VERBOSE = """
history = edgefl.simulate(model, "digits", partition="iid", verbose=True, **{**settings, "rounds": 2})
"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_without_paths_of_a_machine(path: Path) -> None:
    document = json.loads(path.read_text())
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in document["cells"])
    assert not re.search(r"/(home|root|work|tmp|Users)\b", path.read_text())
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_the_first_federation_runs_and_is_quiet_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
    notebook = nbformat.read(ROOT / "examples" / "notebooks" / "first_federation.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(VERBOSE))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = {cell.source: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    asked = outputs.pop(VERBOSE)
    quiet = [found for source, found in outputs.items() if "edgefl." in source]
    assert len(quiet) == 3
    assert not [each for found in quiet for each in found if each.output_type == "stream" and each.name == "stderr"]
    pictures = [each for found in outputs.values() for each in found if "image/png" in each.get("data", {})]
    assert len(pictures) == 2
    texts = [each.text for found in outputs.values() for each in found if each.get("name") == "stdout"]
    assert float(re.search(r"all 1797 digits: accuracy (\S+)", texts[-1])[1]) > 0.8
    said = "".join(each.text for each in asked if each.output_type == "stream")
    assert "20 devices, 2 rounds" in said
    assert "Round 2 of 2: loss" in said
    assert "worst tenth" in json.dumps(asked)
