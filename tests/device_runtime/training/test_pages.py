"""Pages of a file that were read are let go of, and are still there for who reads them again."""

from __future__ import annotations

import mmap
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl.model_file import ModelFile
from edgefl_device_runtime.training import TrainableModel
from edgefl_device_runtime.training.pages import release_pages

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def resident(file: Path) -> int:
    """Kilobytes of a file in this process's memory."""
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match("[0-9a-f]+-", line):
            counts = line.endswith(str(file))
        elif counts and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_pages_that_were_read_are_let_go_of_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "with a blank.bin"
    content = np.random.default_rng(0).bytes(1 << 20)
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content
        assert resident(path) == 1024
        release_pages(path)
        assert resident(path) == 0
        assert mapped[:] == content


def test_what_this_process_has_written_to_a_mapping_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "private.bin"
    path.write_bytes(bytes(8192))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:5] = b"mine!"
        release_pages(path)
        assert mapped[:5] == b"mine!"


def test_a_file_that_is_not_there_or_not_mapped_is_no_trouble(tmp_path: Path) -> None:
    release_pages(tmp_path / "missing")
    (tmp_path / "unmapped").write_bytes(b"1")
    release_pages(tmp_path / "unmapped")


def test_a_loaded_model_does_not_hold_its_initial_weights_twice(wide_file: Path, runtime: str) -> None:
    model = TrainableModel(wide_file, runtime=runtime)
    file = ModelFile.read(wide_file)
    weights = sum(4 * each.size for each in file.manifest.parameters) / 1024
    assert resident(wide_file) < 0.5 * weights
    np.testing.assert_array_equal(model.weights, file.initial_weights())
