from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgefl.wire.messages import MetricState, Outcome, OutcomeStatus
from edgefl_device_runtime.agent.summary import Summary, TaskReport, peak_rss_mb


def outcome(**changes):
    return Outcome(task_id="t", base_weights_hash="0" * 64, layout_hash="1" * 64, **changes)


def test_a_report_takes_the_loss_from_the_states():
    report = TaskReport("t")
    report.note(outcome(metrics=(MetricState("loss_sum", (3.0,)), MetricState("rows", (6.0,)))))
    assert report.loss == 0.5
    assert not report.trouble


def test_a_report_without_rows_has_no_loss():
    report = TaskReport("t", "r", 2)
    report.note(outcome(metrics=(MetricState("loss_sum", (3.0,)), MetricState("rows", (0.0,)))))
    assert report.loss is None
    assert "loss" not in str(report)


@pytest.mark.parametrize(
    ("status", "result", "trouble"),
    [
        (OutcomeStatus.DONE, "accepted", False),
        (OutcomeStatus.DONE, "surplus", False),
        (OutcomeStatus.DONE, "refused: not_finite", True),
        (OutcomeStatus.FAILED, "reported", True),
        (OutcomeStatus.DECLINED, "reported", True),
    ],
)
def test_what_is_trouble(status, result, trouble):
    report = TaskReport("t", result=result)
    report.note(outcome(status=status))
    assert report.trouble is trouble


def test_a_summary_adds_up_and_is_json():
    summary = Summary("d", "p", "s")
    for result in ("accepted", "accepted", "surplus"):
        summary.add(TaskReport("t", result=result, loss=0.5, examples=3, steps=2, seconds=0.25))
    document = json.loads(json.dumps(summary.to_json()))
    assert document["tasks"] == {"accepted": 2, "surplus": 1}
    assert (document["tasks_done"], document["examples"], document["steps"]) == (2, 9, 6)
    assert (document["last_loss"], document["task_seconds"]) == (0.5, 0.75)
    assert "2 tasks done (1 surplus), 9 examples" in str(summary)


def test_the_peak_is_that_of_this_process_and_not_of_what_started_it():
    ballast = bytearray(200 << 20)
    program = "from edgefl_device_runtime.agent.summary import peak_rss_mb; print(peak_rss_mb())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 10 < float(done.stdout) < 100
    assert peak_rss_mb() > 200
    del ballast
