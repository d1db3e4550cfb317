"""State folders of older servers, with all that was in them: they are migrated, and runs end with the bits of then.

`old_states/REVISION.zip` is a state folder as the code wrote it whose newest tables were REVISION: that of commit
35cf2da for 0008, of the one before for 0007. In it a run is over, and another one (SCAFFOLD, four rounds of two
devices) is in its second round: a device's outcome is accepted, and the other device is at its task. That code itself
went on to the weights below.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa

from edgefl_server.storage import ServerState, authenticate, migrations, run_history, run_log, run_status, runs_summary
from fake_device import Identity
from server.conftest import Clock, Fleet

OVER = "d2241502f081aa7c5c09062fd42065f55fed5ec8db5ffdb5d106ae632e4b5c72"
ENDS = [
    "571d09a3d79dfc00bf1cf841633b5896a64c179e4e7847a8b4dd06324a1c9cd9",
    "9f88a767d2896d715f04e78c92db13ffb42102c3a1c9a30e80a53c9bc8f46f0c",
    "7019e27f544b2723e544e47928c21c487bf4e7e2bf4de85159ed1dc966e035d8",
    "2db046528c98f7462abdda5e99f4313713143b0ca6e5075163a1bc6371a19285",
]


@pytest.fixture(params=["0007", "0008"])
def old(request, tmp_path):
    """The server of today on a folder of then."""
    with zipfile.ZipFile(Path(__file__).with_name("old_states") / f"{request.param}.zip") as file:
        file.extractall(tmp_path / "state")
    clock = Clock()
    state = ServerState(tmp_path / "state", clock, clock)
    fleet = Fleet(state, clock, "")
    identities = map(Identity.number, range(3))
    fleet.devices = [authenticate(state, each.device, each.secret) for each in identities]
    yield fleet
    state.close()


def end(old) -> None:
    """Does the rest of the run that is under way."""
    old.finish(old.devices[1])
    old.fold()
    for _ in range(2):
        for device in old.devices[:2]:
            old.finish(device)
        old.fold()


def test_a_run_that_was_under_way_goes_on_to_the_bits_of_the_older_server(old) -> None:
    under_way, over = sorted(runs_summary(old.state), key=lambda each: each["state"])
    before = run_status(old.state, under_way["run"])
    assert (before["state"], before["tasks_open"], before["history"][1]["outcomes"]["accepted"]) == ("active", 1, 1)
    end(old)
    status = run_status(old.state, under_way["run"])
    assert status["state"] == "done"
    assert [each["weights_hash"] for each in status["history"]] == ENDS
    assert [len(each["updates"]) for each in run_log(old.state, under_way["run"])["folds"]] == [2] * 4
    assert run_status(old.state, over["run"])["weights_hash"] == OVER


def test_what_older_servers_did_not_note_is_not_known_and_nothing_else_is_missing(old) -> None:
    for each in runs_summary(old.state):
        versions = run_history(old.state, each["run"])["versions"]
        assert [entry["parent"] for entry in versions] == [None, 0]
        assert {entry["bytes_down"] for entry in versions} == {None}
        status = run_status(old.state, each["run"])
        assert (status["evaluations"], status["central"], status["central_pending"]) == ([], [], False)
    assert old.state.troubles.of("") == []


def test_new_runs_beside_the_old_ones_have_all_that_there_is_today(old) -> None:
    end(old)
    run = old.create_run(rounds=2, target=3, schedule="buffered", rule="median", evaluate_every=0)
    for _ in range(2):
        for device in old.devices:
            old.finish(device)
        old.fold()
    assert run_status(old.state, run)["state"] == "done"


def test_what_devices_fetched_moves_out_of_the_figures_of_the_updates(fleet, tmp_path) -> None:
    run = fleet.create_run(rounds=1, target=1)
    fleet.state.fetched.note(run, 1234)
    fleet.finish(*fleet.add_devices(1))
    fleet.fold()
    (row,) = run_status(fleet.state, run)["history"]
    fleet.state.close()
    path = next(tmp_path.glob("**/*.sqlite*"))
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with sa.create_engine(f"sqlite:///{path}").connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "0009")
        (figures,) = connection.execute(sa.text("SELECT diagnostics FROM folds")).scalars()
        assert json.loads(figures) == {**row["diagnostics"], "bytes_down": 1234.0}
    state = ServerState(path.parent, fleet.clock, fleet.clock)
    assert run_status(state, run)["history"] == [row]
    assert run_history(state, run)["versions"][1]["bytes_down"] == 1234
    state.close()
