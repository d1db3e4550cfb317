"""An owner says which kinds of tasks a device does; and each kind is called what it is."""

from __future__ import annotations

import json

import pytest

from edgefl.errors import InvalidSettingError
from edgefl.wire.messages import OutcomeStatus, Reason, TaskKind
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.agent.status import status_of, status_text
from edgefl_device_runtime.agent.summary import TaskReport


@pytest.mark.parametrize(
    ("allowed", "kind"),
    [
        (("train", "evaluate"), TaskKind.STATISTICS),
        (("train", "statistics"), TaskKind.EVALUATE),
        (("evaluate",), TaskKind.TRAIN),
        (["evaluate", "statistics"], TaskKind.GRADIENT),
    ],
)
def test_what_the_owner_does_not_allow_is_declined_for_good_and_nothing_is_fetched(rig, allowed, kind):
    rig.server.tasks = [rig.task(kind=kind)]
    rig.device(tasks=allowed).step()
    outcome = rig.server.decoded("r-1-d")
    assert (outcome.status, outcome.reason) == (OutcomeStatus.DECLINED, Reason.UNSUPPORTED_TASK)
    assert (outcome.sections, outcome.metrics, outcome.num_examples) == ((), (), 0)
    assert rig.server.asked("GET", "/v1/") == []
    assert f"do tasks of {', '.join(allowed)} alone" in rig.lines[0]


def test_the_server_is_told_what_is_done_so_that_it_asks_for_nothing_else(rig):
    device = rig.device(tasks=["train"])
    device.step()
    (request,) = rig.server.asked("POST", "/v1/devices")
    assert json.loads(request.body)["capabilities"]["kinds"] == ["train", "gradient"]


def test_all_is_done_unless_the_owner_says_otherwise(rig):
    rig.server.tasks = [rig.task("r-2-d", kind=TaskKind.STATISTICS), rig.task("r-1-d", kind=TaskKind.EVALUATE)]
    device = rig.device()
    device.step()
    device.step()
    assert {rig.server.decoded(task).status for task in ("r-1-d", "r-2-d")} == {OutcomeStatus.DONE}
    told = json.loads(rig.server.asked("POST", "/v1/devices")[0].body)["capabilities"]["kinds"]
    assert told == ["train", "evaluate", "statistics", "gradient"]


@pytest.mark.parametrize("wrong", [(), ["train", "gradient"], ["all"]])
def test_what_no_owner_can_mean_is_refused(rig, wrong):
    with pytest.raises(InvalidSettingError, match="some of train, evaluate, statistics"):
        rig.device(tasks=wrong)


@pytest.mark.parametrize(
    ("kind", "changes", "title"),
    [
        (TaskKind.TRAIN, {}, "Round 1 of r"),
        (TaskKind.EVALUATE, {"version": 4}, "Evaluation of version 4 of r"),
        (TaskKind.STATISTICS, {}, "Statistics of r"),
    ],
)
def test_a_task_is_called_what_it_is(rig, kind, changes, title):
    rig.server.tasks = [rig.task(kind=kind, **changes)]
    rig.device().step()
    assert rig.lines[0].startswith(f"{title}: done, accepted; ")
    rig.devices[-1].close()
    said = status_text(status_of(StateFolder(rig.folder / "state")))
    assert f"  {title[0].lower()}{title[1:]}: done, accepted; " in said


def test_what_an_earlier_edgefl_noted_is_a_round(rig):
    rig.device().close()
    state = StateFolder(rig.folder / "state")
    document = json.loads(state.status.read_text())
    noted = {"at": 0, "task_id": "r-1-d", "run": "r", "round": 3, "status": "done", "result": "accepted"}
    document["history"] = [{**noted, "loss": None, "examples": 1, "steps": 1, "seconds": 0.0}]
    state.status.write_text(json.dumps(document))
    assert "  round 3 of r: done, accepted; 1 example, " in status_text(status_of(state))


def test_a_task_of_an_earlier_process_has_only_its_id():
    assert TaskReport("t-1").title() == "Task t-1"
