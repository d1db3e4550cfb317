from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edgefl.errors import StorageError
from edgefl.wire.messages import Outcome
from edgefl_device_runtime.agent.memories import Memories
from edgefl_device_runtime.agent.state import StateFolder
from edgefl_device_runtime.tasks import RunMemory

OUTCOME = Outcome(task_id="t", base_weights_hash="0" * 64, layout_hash="1" * 64)


def test_an_outcome_is_kept_until_it_is_dropped(tmp_path):
    state = StateFolder(tmp_path / "s")
    state.acquire()
    assert state.unsent_outcome() is None
    state.keep_outcome(OUTCOME.encode())
    assert StateFolder(tmp_path / "s").unsent_outcome() == (OUTCOME, OUTCOME.encode())
    state.drop_outcome()
    assert state.unsent_outcome() is None
    state.drop_outcome()


def test_a_folder_of_somebody_elses_files_is_refused_and_nothing_in_it_is_touched(tmp_path):
    for name in ("runs/experiment/events", "cache/models/mine.h5", "thesis.tex"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StorageError, match=r"'thesis\.tex'"):
        StateFolder(tmp_path).acquire()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_whose_first_start_was_cut_off_is_taken_into_use(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / ".identity.json.0123456789abcdef.part").touch()
    StateFolder(tmp_path).acquire()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_only_the_owner_can_look_into_the_folder(tmp_path):
    StateFolder(tmp_path / "s").acquire()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700


def test_where_the_device_takes_part_is_remembered(tmp_path):
    StateFolder(tmp_path).remember_enrolment({"server": "s", "population": "p"})
    assert StateFolder(tmp_path).enrolment() == {"server": "s", "population": "p"}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b'{"server": 5}', b'{"server": "s", "population": ["p"]}'])
def test_a_damaged_memory_of_the_server_counts_as_none(tmp_path, content):
    (tmp_path / "enrolment.json").write_bytes(content)
    assert StateFolder(tmp_path).enrolment() == {}


def test_one_process_at_a_time_has_the_folder(tmp_path):
    first, second = StateFolder(tmp_path), StateFolder(tmp_path)
    first.acquire()
    with pytest.raises(StorageError, match="Another process"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_what_a_kill_left_of_a_write_is_removed(tmp_path):
    (tmp_path / ".outcome.message.abc.part").write_bytes(b"half")
    state = StateFolder(tmp_path)
    state.acquire()
    state.release()
    assert not (tmp_path / ".outcome.message.abc.part").exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        StateFolder(tmp_path / "file" / "state").acquire()


def test_looking_at_a_folder_neither_makes_nor_claims_it(tmp_path):
    looking = StateFolder(tmp_path / "s")
    assert not looking.used()
    assert looking.enrolment() == {}
    assert looking.unsent_outcome() is None
    assert list(tmp_path.iterdir()) == []
    using = StateFolder(tmp_path / "s")
    using.acquire()
    assert looking.used()
    using.release()
    assert not looking.used()


A, B = ("https://a", "p"), ("https://b", "p")


def work_of(state):
    unsent = state.unsent_outcome()
    return (unsent[0].task_id if unsent else None), Memories(state.runs).runs()


@pytest.mark.parametrize("other", [B, ("https://a", "q")])
def test_what_belongs_to_another_server_or_population_waits_aside_until_it_is_its_turn_again(tmp_path, other):
    state = StateFolder(tmp_path)
    assert state.work_for(*A) is None
    state.keep_outcome(OUTCOME.encode())
    Memories(state.runs).keep("r", "t", RunMemory())
    assert "keeps for https://a (p) is put aside" in state.work_for(*other)
    assert work_of(state) == (None, [])
    assert state.work_for(*other) is None
    Memories(state.runs).keep("s", "t", RunMemory())
    state.work_for(*A)
    assert work_of(state) == ("t", ["r"])
    assert state.work_for("https://a/", "p") is None
    state.work_for(*other)
    assert work_of(state) == (None, ["s"])


def test_of_a_folder_that_does_not_say_whose_its_work_is_the_enrolment_does(tmp_path):
    state = StateFolder(tmp_path)
    state.remember_enrolment({"server": "https://a", "population": "p", "certificate_pin": None})
    state.keep_outcome(OUTCOME.encode())
    assert state.work_for(*B) is not None
    assert work_of(state) == (None, [])
    state.work_for(*A)
    assert work_of(state) == ("t", [])


@pytest.mark.parametrize("moves", range(5))
@pytest.mark.parametrize("then", [A, B])
def test_a_kill_while_work_is_put_aside_leaves_each_thing_with_whom_it_belongs_to(tmp_path, monkeypatch, moves, then):
    state = StateFolder(tmp_path)
    for server, task_id in ((B, "b"), (A, "a")):
        state.work_for(*server)
        state.keep_outcome(Outcome(task_id, base_weights_hash="0" * 64, layout_hash="1" * 64).encode())
        Memories(state.runs).keep(task_id, "t", RunMemory())
    rename, left = Path.rename, [moves]

    def killed(path, target):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    if moves < 4:
        with pytest.raises(KeyboardInterrupt):
            state.work_for(*B)
    monkeypatch.undo()
    for server in (then, A if then is B else B):
        state.work_for(*server)
        name = "a" if server is A else "b"
        assert work_of(state) == (name, [name])
