"""What a conversion takes is said before its work begins, and it takes no more."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import keras
import pytest
from keras import layers

import edgefl
from edgefl.errors import MemoryShortageError, UnsupportedModelError
from edgefl_converters.building import building, room
from edgefl_converters.building.room import Weights, memory_needed, require_room
from edgefl_converters.memory import available
from edgefl_converters.training_step.specification import specify

MB, GB = 1 << 20, 1 << 30
_KERNEL = 64 * MB
_CHILD = """
import json, resource, sys
import keras
from keras import layers
import edgefl

keras.utils.set_random_seed(0)
frozen = layers.Dense(4096, activation="relu", trainable=False)
model = keras.Sequential([keras.Input((4096,)), frozen, layers.Dense(4, activation="softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
with open("/proc/self/statm") as file:
    before = int(file.read().split()[1]) * resource.getpagesize()
edgefl.convert(model, sys.argv[1], batch_size=4, verify=sys.argv[2] == "verify")
with open("/proc/self/status") as file:  # what rusage says begins with the memory of whoever started the process
    peak = next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
print(json.dumps([before, peak, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10]))
"""


def network(width=2048):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(width), layers.Dense(width), layers.Dense(3, activation="softmax")]
    )
    for layer in model.layers[:2]:
        layer.trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def refused(error, match, specification, **settings):
    with pytest.raises(error, match=match) as caught:
        require_room(specification, **settings)
    return str(caught.value)


@pytest.fixture(scope="module")
def specification():
    """Of a model with 16.8 MB of frozen weights."""
    return specify(network())


def converted_in_a_child(path, verify):
    """Bytes before the conversion, its peak, and the largest peak of an interpreter's process."""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}  # its own allocator keeps all that it ever had
    command = [sys.executable, "-c", _CHILD, str(path), verify]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=900)
    return json.loads(done.stdout.splitlines()[-1])


def test_a_large_frozen_kernel_is_converted_in_a_few_times_its_memory(tmp_path):
    before, peak, _ = converted_in_a_child(tmp_path / "model.tflite", "")
    assert (peak - before) / _KERNEL < 6
    assert _KERNEL < (tmp_path / "model.tflite").stat().st_size < 1.01 * _KERNEL


@pytest.mark.slow
def test_verifying_it_keeps_the_bound_too(tmp_path):
    # While runtimes run, in processes of their own, what Keras had has been given back: the peaks do not add up.
    _, peak, of_runtimes = converted_in_a_child(tmp_path / "model.tflite", "verify")
    assert max(peak, of_runtimes) < 6 * _KERNEL + 1.5e9


def test_too_little_memory_is_told_in_figures_with_what_to_do(specification):
    told = refused(MemoryShortageError, r"takes about 0\.\d\d GB", specification, verify=True, free=GB // 2)
    assert "0.54 GB may still be taken" in told
    assert "0.02 GB of frozen weights" in told
    assert "more memory" in told


def test_a_conversion_without_verification_is_proposed_where_there_is_room_for_it(specification):
    weights = Weights.of(specification)
    free = (memory_needed(weights, verify=False) + memory_needed(weights, verify=True)) // 2
    assert "`verify=False`" in refused(MemoryShortageError, "of memory", specification, verify=True, free=free)
    require_room(specification, verify=False, free=free)


def test_small_models_and_machines_that_do_not_tell_are_not_refused(specification, monkeypatch):
    monkeypatch.setattr(room, "available", lambda: None)
    require_room(specification, verify=True)
    require_room(specify(network(16)), verify=True, free=1)


def test_a_file_beyond_what_references_reach_is_told_in_figures_with_what_to_do(specification, monkeypatch):
    monkeypatch.setattr(room, "LARGEST_FILE", 32 * MB)
    told = refused(UnsupportedModelError, "0.02 GB of weights", specification, verify=True, free=64 * GB)
    assert "a TFLite file can have 0.03 GB" in told
    assert "smaller vocabulary" in told


@pytest.mark.parametrize("error", [MemoryShortageError, UnsupportedModelError])
def test_both_are_told_before_the_work_begins(error, monkeypatch, tmp_path):
    monkeypatch.setattr(room, "available", lambda: 1 if error is MemoryShortageError else 64 * GB)
    if error is UnsupportedModelError:
        monkeypatch.setattr(room, "LARGEST_FILE", 32 * MB)
    monkeypatch.setattr(building, "trace", lambda *_: pytest.fail("the work has begun"))
    with pytest.raises(error):
        edgefl.convert(network(), tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def linux(root, meminfo, groups):
    """A file system in which Linux tells of itself."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(meminfo)
    lines = []
    for place, files in groups.items():
        folder = root / "sys/fs/cgroup" / place
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        lines.append(f"0::/{place}\n" if not place.startswith("memory") else f"4:memory:/{place[7:]}\n")
    (root / "proc/self/cgroup").write_text("".join(lines))
    return root


MEMINFO = "MemTotal:  8000000 kB\nMemAvailable:  4000000 kB\nSwapFree:  1000000 kB\n"


def test_available_memory_is_the_machines(tmp_path):
    assert available(linux(tmp_path, MEMINFO, {})) == 5_000_000 << 10
    assert available(tmp_path / "nowhere") is None


def test_a_control_group_or_one_around_it_may_leave_less(tmp_path):
    groups = {
        "outer": {"memory.max": f"{2 * GB}\n", "memory.current": f"{GB}\n", "memory.stat": f"inactive_file {MB}\n"},
        "outer/inner": {"memory.max": "max\n", "memory.current": f"{GB}\n"},
    }
    assert available(linux(tmp_path, MEMINFO, groups)) == GB + MB


def test_control_groups_of_the_first_version_count_too(tmp_path):
    limits = {"memory.limit_in_bytes": f"{GB}\n", "memory.usage_in_bytes": f"{GB // 4}\n"}
    assert available(linux(tmp_path, MEMINFO, {"memory/here": limits})) == GB - GB // 4


@pytest.mark.parametrize(
    ("limit", "left"), [("4294967296", 4 * GB - 1000 * resource.getpagesize()), ("unlimited", None)]
)
def test_a_limit_of_the_process_itself_counts_what_it_has_reserved(tmp_path, limit, left):
    linux(tmp_path, MEMINFO, {})
    (tmp_path / "proc/self/limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units\n"
        "Max cpu time              unlimited            unlimited            seconds\n"
        f"Max address space         {limit:<20} unlimited            bytes\n"
    )
    (tmp_path / "proc/self/statm").write_text("1000 300 200 1 0 500 0\n")
    left = 5_000_000 << 10 if limit == "unlimited" else 4 * GB - 1000 * resource.getpagesize()
    assert available(tmp_path) == left
