from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "training.md"


def test_every_snippet_of_the_page_runs(mlp_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(mlp_file, tmp_path / "model.tflite")
    with np.load(mlp_file.with_suffix(".npz")) as found:
        np.savez(tmp_path / "data.npz", x=found["x"], y=found["y"])
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(snippets) == 6
    for snippet in snippets:
        exec(compile(snippet, str(PAGE), "exec"), namespace)
    np.testing.assert_array_equal(namespace["model"].weights, namespace["received"])
