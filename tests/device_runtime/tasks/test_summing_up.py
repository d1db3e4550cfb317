"""A device sums up its data as numpy would, also where it stays in a file."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.summaries import Summary
from edgefl.wire.messages import OutcomeStatus, Reason, TaskKind
from edgefl_device_runtime.tasks import Examples
from edgefl_device_runtime.tasks import summing_up as summing_up_module
from edgefl_device_runtime.tasks.summing_up import sum_up
from edgefl_device_runtime.training.file_rows import DataFile, FileRows
from quadratic_trainer import quadratic_manifest


def summary_of(device, task_id: str = "t1", **changes) -> Summary:
    result = device.perform(device.task(task_id, kind=TaskKind.STATISTICS, **changes))
    assert result.error is None
    (section,) = result.outcome.sections
    assert section.name == "summary"
    return Summary.decode(section.content())


def test_inputs_and_targets_are_summed_up_and_nothing_is_trained(device):
    found = summary_of(device)
    x = device.data["x"].astype(np.float64)
    assert found.rows == 4
    assert set(found.arrays) == {"x", "y"}
    np.testing.assert_array_equal(found.arrays["x"].sums, x.sum(0))
    np.testing.assert_allclose(found.arrays["x"].variance, x.var(0), rtol=1e-14)
    assert device.trainer.trained == 0
    assert device.remembered == {}


def test_rows_in_a_file_are_read_in_pieces_with_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(summing_up_module, "_ELEMENTS", 64)
    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    (tmp_path / "x").write_bytes(x.tobytes())
    rows = FileRows(DataFile(tmp_path / "x"), 0, x.shape, x.dtype)
    y = np.zeros(100, np.float32)
    manifest = quadratic_manifest()
    from_file = sum_up(Examples({"x": rows}, {"y": y}), manifest)
    assert from_file.encode() == sum_up(Examples({"x": x}, {"y": y}), manifest).encode()
    np.testing.assert_allclose(from_file.arrays["x"].mean, x.astype(np.float64).mean(0), rtol=1e-12)


def test_an_owner_who_lets_no_few_examples_go_lets_no_summary_of_them_go(device):
    device.data = {name: array[:1] for name, array in device.data.items()}
    outcome = device.perform(device.task(kind=TaskKind.STATISTICS)).outcome
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.NOT_READY)
    assert outcome.sections == ()


def test_data_that_does_not_fit_the_model_is_not_summed_up(device):
    device.data["x"] = np.full((4, 4), np.nan, np.float32)
    result = device.perform(device.task(kind=TaskKind.STATISTICS))
    assert (result.outcome.status, result.outcome.reason) == (OutcomeStatus.FAILED, Reason.DATA_MISMATCH)
    with pytest.raises(Exception, match="finite"):
        raise result.error
