"""What was checked when it was accepted is not read as a whole again, and what is not there any more is noticed."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from edgefl_server.aggregation import Expectation
from edgefl_server.storage import placements, run_status
from edgefl_server.storage.tables import RunRow, VersionRow


def accepted(fleet, rounds=1, minimum=1, **settings):
    devices = fleet.add_devices(3)
    run = fleet.create_run(target=3, minimum=minimum, rounds=rounds, **settings)
    return run, [fleet.finish(device) for device in devices]


def bits(fleet, run) -> bytes:
    with fleet.state.database.read() as session:
        version = session.get_one(RunRow, run).version
        row = session.get_one(VersionRow, (run, version))
        return fleet.state.weights.get(row.weights_hash)


def outcome_files(fleet):
    return sorted(path for path in (fleet.state.folder / "outcomes").iterdir() if not path.name.startswith("."))


def test_a_fold_ends_with_the_same_bits_from_pieces_as_from_whole_messages(make_fleet, monkeypatch) -> None:
    found = []
    for name in ("placed", "whole"):
        fleet = make_fleet(name)
        run, _ = accepted(fleet, seed=5)
        if name == "placed":
            monkeypatch.setattr("edgefl_server.storage.merging.decode_outcome", None)  # is not needed
        else:
            monkeypatch.undo()
            for path in outcome_files(fleet):
                fleet.state.placements.forget(path.name)
        assert fleet.fold()
        found.append(bits(fleet, run))
    assert found[0] == found[1]


def test_a_file_that_is_another_one_is_read_and_checked_as_a_whole(fleet) -> None:
    run, _ = accepted(fleet)
    changed = outcome_files(fleet)[0]
    content = bytearray(changed.read_bytes())
    content[-9] ^= 1  # a weight that is finite and short
    changed.write_bytes(content)
    fleet.fold()
    (entry,) = run_status(fleet.state, run)["history"]
    assert (entry["state"], entry["outcomes"]["damaged"], entry["outcomes"]["folded"]) == ("done", 1, 2)


@pytest.mark.parametrize("how", ["short", "gone"])
def test_a_file_that_is_lost_while_a_fold_reads_it_is_left_out(fleet, monkeypatch, how: str) -> None:
    run, _ = accepted(fleet)
    lost = outcome_files(fleet)[1]
    open_file = os.open

    def lose(path, *rest, **named):
        if str(path) == str(lost) and lost.exists():
            os.truncate(lost, 300) if how == "short" else lost.unlink()
        return open_file(path, *rest, **named)

    monkeypatch.setattr(placements.os, "open", lose)
    fleet.fold()
    monkeypatch.undo()
    (entry,) = run_status(fleet.state, run)["history"]
    assert (entry["state"], entry["outcomes"]["damaged"], entry["outcomes"]["folded"]) == ("done", 1, 2)


def test_a_disk_that_cannot_read_a_piece_now_keeps_the_round_waiting_and_nothing_is_lost(fleet, monkeypatch) -> None:
    run, _ = accepted(fleet)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(placements.os, "preadv", fail)
    fleet.fold()
    assert run_status(fleet.state, run)["history"][0]["state"] == "folding"
    monkeypatch.undo()
    fleet.clock.now += 3600
    fleet.fold()
    (entry,) = run_status(fleet.state, run)["history"]
    assert (entry["state"], entry["outcomes"]["folded"]) == ("done", 3)


def test_what_was_written_in_another_way_than_as_float32_is_decoded_as_a_whole(fleet) -> None:
    run, _ = accepted(fleet, codec="float16")
    expected = Expectation("t", "", "", 1, 0)
    assert [fleet.state.placements.get(each.name, expected) for each in outcome_files(fleet)] == [None] * 3
    assert fleet.fold()
    assert np.isfinite(np.frombuffer(bits(fleet, run), np.float32)).all()


def test_only_so_many_are_remembered_and_what_is_folded_is_forgotten(fleet, monkeypatch) -> None:
    monkeypatch.setattr(placements, "_MOST", 2)
    accepted(fleet)
    assert len(fleet.state.placements._known) == 2
    fleet.fold()
    assert len(fleet.state.placements._known) == 0
