import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import EdgeflError, ModelFileError, StorageError
from edgefl.hashing import weights_hash
from edgefl.model_file import ModelFile
from model_files import default_parameters, make_model_file

DATA = make_model_file(seed=3)


def test_the_initial_weights_are_read_without_an_interpreter() -> None:
    values = [np.full(each.shape, index, np.float32) for index, each in enumerate(default_parameters())]
    model = ModelFile(make_model_file(values=values))
    model.verify()
    views = model.manifest.layout.views(model.initial_weights())
    assert {name: view.mean() for name, view in views.items()} == {
        "dense/kernel": 0,
        "dense/bias": 1,
        "norm/moving_variance": 2,
    }
    assert weights_hash(model.initial_weights()) == model.manifest.weights_hash


def test_the_graph_hash_does_not_depend_on_the_weights() -> None:
    one, two = ModelFile(make_model_file(seed=1)).manifest, ModelFile(make_model_file(seed=2)).manifest
    assert one.graph_hash == two.graph_hash
    assert one.weights_hash != two.weights_hash


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed_unless_it_lies_in_the_text_of_the_manifest(position: int, change: int) -> None:
    start = DATA.index(ModelFile(DATA).manifest.to_json())
    damaged = bytearray(DATA)
    damaged[position] ^= change
    try:
        ModelFile(bytes(damaged)).verify()
    except EdgeflError:
        return
    assert start <= position < start + len(ModelFile(DATA).manifest.to_json())


@given(st.integers(0, len(DATA) - 1))
def test_a_file_that_was_cut_short_is_one_clear_error(length: int) -> None:
    with pytest.raises(EdgeflError):
        ModelFile(DATA[:length]).verify()


def test_a_tflite_file_without_manifest_says_how_to_get_one() -> None:
    renamed = DATA.replace(b"EDGEFL_MANIFEST", b"SOMETHING_ELSE_")
    with pytest.raises(ModelFileError, match="without the metadata entry EDGEFL_MANIFEST") as caught:
        ModelFile(renamed)
    assert "edgefl convert" in (caught.value.hint or "")


def test_a_missing_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Could not read"):
        ModelFile.read(tmp_path / "missing.tflite")


def test_inspect_prints_what_is_in_a_file_and_says_when_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(DATA)
    command = [sys.executable, "-m", "edgefl.cli.main", "inspect", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "intact" in shown
    assert "dense/kernel" in shown
    assert "3×4" in shown

    damaged = bytearray(DATA)
    at = DATA.index(ModelFile(DATA).initial_value(ModelFile(DATA).manifest.parameters[0]).tobytes())
    damaged[at] ^= 1
    path.write_bytes(bytes(damaged))
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 20
    assert "weights' hash" in refused.stderr
    assert refused.stdout == ""
