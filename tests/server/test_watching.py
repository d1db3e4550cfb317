from __future__ import annotations

from typing import Any

import pytest

from edgefl.errors import RunError, ServerUnavailableError
from edgefl_server.run_text import round_line, runs, status
from edgefl_server.watching import require_success, watch


def entry(number: int, state: str, **change: Any) -> dict[str, Any]:
    return {
        "round": number,
        "state": state,
        "why": "",
        "outcomes": {"accepted": 0, "folded": 2, "discarded": 0, "declined": 0, "failed": 0},
        "reasons": {},
        "diagnostics": {"update_norm": 0.25, "devices_capped": 0.0, "weight_cap": 0.0, "devices_bounded": 0.0},
        "loss": 0.5,
        "metrics": {"accuracy": 0.75},
        "seconds": 1.25,
        **change,
    }


def document(state: str, *history: dict[str, Any], why: str = "") -> dict[str, Any]:
    return {
        "run": "abc",
        "name": "mine",
        "state": state,
        "why": why,
        "round": len(history),
        "rounds": 2,
        "population": "people",
        "devices_enrolled": 3,
        "settings": {"strategy": "scaffold"},
        "tasks_open": 1,
        "target": 2,
        "weights_hash": "f" * 64,
        "history": list(history),
    }


class Answers:
    """A client that gives prepared answers."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)

    def get(self, path: str) -> Any:
        assert path == "/v1/runs/abc"
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_each_round_is_told_once_when_it_has_ended() -> None:
    told: list[str] = []
    answers = Answers(
        document("active", entry(1, "selecting")),
        document("active", entry(1, "done"), entry(2, "collecting")),
        document("done", entry(1, "done"), entry(2, "done")),
    )
    result = watch(answers, "abc", told.append, sleep=lambda seconds: None)  # type: ignore[arg-type]
    assert told[0] == "run abc (mine): active, round 1 of 2"
    assert [line.split()[1] for line in told[1:]] == ["1", "2"]
    require_success(result)


def test_what_a_run_waits_for_is_told_once_until_it_changes() -> None:
    told: list[str] = []
    documents = [{**document("active"), "devices_enrolled": enrolled} for enrolled in (0, 0, 1, 2, 2)]
    answers = Answers(*documents, document("done"))
    watch(answers, "abc", told.append, sleep=lambda seconds: None)  # type: ignore[arg-type]
    assert told[1:] == ["waiting: 0 of 2 devices enrolled in people", "waiting: 1 of 2 devices enrolled in people"]


def test_a_run_that_needs_fewer_devices_than_updates_does_not_wait_for_more() -> None:
    told: list[str] = []
    documents = [{**document("active"), "devices_enrolled": enrolled, "devices_needed": 1} for enrolled in (0, 1)]
    watch(Answers(*documents, document("done")), "abc", told.append, sleep=lambda seconds: None)  # type: ignore[arg-type]
    assert told[1:] == ["waiting: 0 of 1 device enrolled in people"]


def test_who_has_watched_the_rounds_is_not_told_them_again() -> None:
    result = document("done", entry(1, "done"), entry(2, "done"))
    assert "round    1" in status(result)
    text = status(result, rounds=False)
    assert "round    1" not in text
    assert text.startswith("run abc (mine): done, round 2 of 2")


def test_a_restart_of_the_server_is_waited_for() -> None:
    away = ServerUnavailableError("away")
    answers = Answers(away, away, document("done", entry(1, "done")))
    told: list[str] = []
    assert watch(answers, "abc", told.append, sleep=lambda seconds: None)["state"] == "done"  # type: ignore[arg-type]
    assert [line for line in told if "Trying again" in line] == ["away. Trying again for a minute."]


def test_a_server_that_stays_away_is_not_waited_for_for_ever() -> None:
    answers = Answers(*[ServerUnavailableError("away")] * 100)
    with pytest.raises(ServerUnavailableError):
        watch(answers, "abc", lambda line: None, sleep=lambda seconds: None)  # type: ignore[arg-type]
    assert answers.answers


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_a_run_that_did_not_end_well_is_an_error_that_says_why(state: str) -> None:
    with pytest.raises(RunError, match="too few devices"):
        require_success(document(state, why="too few devices"))


def test_a_line_says_what_came_of_a_round() -> None:
    line = round_line(
        entry(
            7,
            "failed",
            outcomes={"accepted": 0, "folded": 0, "discarded": 2, "declined": 1, "failed": 0},
            reasons={"no_data": 1},
            why="the deadline passed",
            loss=None,
            metrics={},
        )
    )
    assert line == "round    7 failed        1.2 s  2 discarded, 1 declined; reasons: no_data ×1; the deadline passed"
    assert "loss 0.5000; accuracy 0.7500" in round_line(entry(1, "done"))
    spread = {"loss": {"mean": 0.6, "deviation": 0.1, "quantiles": {"0.1": 0.4, "0.5": 0.6, "0.9": 0.8}}}
    line = round_line(entry(1, "done", findings={"devices": 20, "spread": spread}))  # of a run that only evaluates
    assert "loss 0.5000 (devices 0.6000 ± 0.1000, 0.4000 to 0.8000); accuracy 0.7500" in line


def test_a_line_says_where_devices_were_not_taken_at_their_word() -> None:
    figures = {"devices_capped": 1.0, "weight_cap": 1000.0, "devices_bounded": 2.0, "statistics_bounded": 12.0}
    line = round_line(entry(1, "done", diagnostics=figures))
    assert "1 device counted for no more than 1,000 examples" in line
    assert "statistics of 2 devices held to their range (12 elements)" in line
    assert "held" not in round_line(entry(1, "done"))
    assert round_line(entry(1, "selecting", diagnostics={})).count(";") == 2


def test_the_status_of_a_run_says_why_it_ended() -> None:
    text = status(document("failed", entry(1, "failed"), why="nobody came"))
    assert text.startswith("run abc (mine): failed, round 1 of 2\n  why: nobody came\n")


def test_a_line_says_no_outcomes_yet_only_while_there_may_be_some() -> None:
    nothing = {"outcomes": {"folded": 0}}
    assert "no outcomes yet" in round_line(entry(1, "collecting", **nothing))
    assert "no outcomes;" in round_line(entry(1, "failed", **nothing))


def test_one_is_not_told_as_many() -> None:
    text = status({**document("active"), "devices_enrolled": 1})
    assert "1 device enrolled, 1 task open" in text


def test_no_runs_are_said_so() -> None:
    assert runs({"runs": [], "warnings": []}) == "no runs"


def test_a_paused_run_is_followed_and_said_to_pause_until_it_goes_on() -> None:
    told: list[str] = []
    answers = Answers(document("paused"), document("paused"), document("active"), document("done", entry(1, "done")))
    result = watch(answers, "abc", told.append, lambda _: None)  # type: ignore[arg-type]
    assert result["state"] == "done"
    assert told[1] == "paused: devices get no work of it until `edgefl run resume abc`"
    assert len([line for line in told if line.startswith("paused")]) == 1


def evaluation(version: int, state: str, **change: Any) -> dict[str, Any]:
    spread = {"accuracy": {"mean": 0.5, "deviation": 0.25, "quantiles": {"0.1": 0.25, "0.5": 0.5, "0.9": 0.75}}}
    return {**entry(0, state), "version": version, "findings": {"devices": 20, "spread": spread}, **change}


def test_each_evaluation_is_told_once_and_that_of_the_last_version_is_waited_for() -> None:
    told: list[str] = []
    first = evaluation(0, "done")
    going_on = {**document("done", entry(1, "done")), "evaluating": True}
    answers = Answers(
        {**document("active"), "evaluations": [first], "evaluating": False},
        {**going_on, "evaluations": [first, evaluation(1, "collecting")]},
        {**going_on, "evaluations": [first, evaluation(1, "collecting")]},
        {**going_on, "evaluations": [first, evaluation(1, "done", metrics={})], "evaluating": False},
    )
    result = watch(answers, "abc", told.append, sleep=lambda _: None)  # type: ignore[arg-type]
    assert told[1:] == [
        "version    0 evaluated on 2 devices; loss 0.5000; accuracy 0.7500 (devices 0.5000 ± 0.2500, 0.2500 to 0.7500)",
        round_line(entry(1, "done")),
        "run abc is done; its last version is still evaluated",
        "version    1 evaluated on 2 devices; loss 0.5000",
    ]
    assert not answers.answers
    assert told[1] in status(result)
    assert told[1] not in status(result, rounds=False)
