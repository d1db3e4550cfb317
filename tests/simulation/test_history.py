"""`History`: as a table, as a picture, and read back from the folder of a run that is over, under way or broken off."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import edgefl
from edgefl.errors import InvalidSettingError, RunError, StorageError
from edgefl_server.aggregation import StrategyState
from edgefl_simulation import History
from edgefl_simulation.curves import flat, flat_rows
from edgefl_simulation.plans import Checkpoint
from edgefl_simulation.recorded import RunState, read_run
from edgefl_simulation.report.comparing import Compared
from edgefl_simulation.run_folder import RunFolder

SETTINGS = {"devices": 6, "partition": "dirichlet:1,2", "rounds": 4, "cohort": 3, "workers": 1, "seed": 3}


def copied(folder, to):
    return shutil.copytree(folder, to)


@pytest.fixture(scope="module")
def kept(plain_sgd_file, owned_once, tmp_path_factory):
    """The history of a run and the folder that it left."""
    folder = tmp_path_factory.mktemp("runs") / "kept"
    return edgefl.simulate(plain_sgd_file, owned_once, out=folder, **SETTINGS), folder


def test_what_is_read_back_is_what_the_simulation_returned(kept):
    history, folder = kept
    again = edgefl.History.load(folder)
    assert again.rounds == history.rounds
    assert again.initial == history.initial
    assert again.table() == history.table()
    assert again.summary() == history.summary() | {"devices_per_second": round(history.devices_per_second, 1)}
    assert np.array_equal(again.weights, history.weights)
    assert again.model == history.model
    assert again.folder == folder


def test_the_table_has_the_same_flat_columns_in_each_row(kept):
    history, _ = kept
    rows = history.table()
    assert [row["round"] for row in rows] == [0, 1, 2, 3, 4]
    assert len({tuple(row) for row in rows}) == 1
    assert all(isinstance(value, (int, float, str, type(None))) for row in rows for value in row.values())
    assert rows[0]["central.accuracy"] == history.initial["central"]["accuracy"]
    assert rows[0]["outcomes.done"] is None
    last = history.rounds[-1]
    assert rows[-1]["federated.accuracy.quantiles.0.1"] == last["federated"]["accuracy"]["quantiles"]["0.1"]
    assert rows[-1]["clock"] == last["clock"]


def test_lists_become_numbers_or_one_text_and_bytes_are_added_up():
    row = {"staleness": [0, 1, 2], "errors": ["out of memory", "no data"], "central": {"loss": 0.5}, "late": []}
    assert flat(row) == {
        "staleness.mean": 1.0,
        "staleness.max": 2,
        "errors": "out of memory; no data",
        "central.loss": 0.5,
        "late": "",
    }
    rows = flat_rows({}, [{"round": 1, "bytes_up": 10, "bytes_down": 5}, {"round": 2, "bytes_up": 1}])
    assert [row["bytes_so_far"] for row in rows] == [15, 16]
    assert rows[1]["bytes_down"] is None


def test_pandas_would_find_columns_of_equal_length(kept):
    rows = kept[0].table()
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert {len(column) for column in columns.values()} == {5}


@pytest.mark.parametrize(
    ("against", "label"), [("round", "round"), ("time", "simulated time (s)"), ("bytes", "bytes up and down (kB)")]
)
def test_a_plot_shows_the_metric_and_the_spread_over_devices(kept, against, label):
    history, _ = kept
    axes = history.plot("loss", against=against, axes=Figure().subplots())
    assert axes.get_xlabel() == label
    assert list(axes.lines[0].get_ydata()) == [history.initial["central"]["loss"], *history.metric("loss")]
    assert len(axes.collections) == 1
    assert axes.get_title() == f"loss by {label.partition(' (')[0]}"


def test_a_plot_is_of_accuracy_unless_asked_and_several_go_into_the_same_axes(kept):
    history, _ = kept
    axes = history.plot(label="one")
    assert history.plot(label="_two $x$", axes=axes) is axes
    assert axes.get_ylabel() == "accuracy"
    assert [line.get_label() for line in axes.lines] == ["one", "_two $x$"]
    assert axes.lines[0].get_color() != axes.lines[1].get_color()
    axes.figure.canvas.draw()


def test_a_plot_of_a_run_that_diverges_is_logarithmic_and_one_that_does_not_is_none():
    def history(losses):
        return History(None, None, b"", [{"round": n, "central": {"loss": x}} for n, x in enumerate(losses, start=1)])

    tame, wild = history([2.3, 1.9, 1.2, 0.7]), history([2.3, 40.0, 9e6, 1e13])
    axes = tame.plot("loss", axes=Figure().subplots())
    assert axes.get_yscale() == "linear"
    assert wild.plot("loss", axes=axes).get_yscale() == "log"
    assert tame.plot("loss", axes=axes).get_yscale() == "log"
    assert list(axes.lines[1].get_ydata()) == [2.3, 40.0, 9e6, 1e13]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "acuracy"}, "no metric 'acuracy'. This history has loss, accuracy"),
        ({"against": "hours"}, "Expected one of round, time, bytes"),
    ],
)
def test_a_plot_of_nothing_is_refused(kept, given, message):
    with pytest.raises(InvalidSettingError) as caught:
        kept[0].plot(**given)
    assert message in str(caught.value)


def test_without_matplotlib_the_line_that_installs_it_is_named():
    program = """
import sys
sys.modules["matplotlib"] = None
from edgefl.errors import MissingDependencyError
from edgefl_simulation.history import History
history = History(None, None, b"", [{"round": 1, "central": {"loss": 1.0}}])
assert history.table() == [{"round": 1, "central.loss": 1.0}]
try:
    history.plot()
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "edgefl-toolkit[simulate]" in done.stdout


def test_a_history_is_one_line_where_it_is_shown(kept):
    assert repr(kept[0]).startswith("<History of 4 rounds: loss ")
    assert "\n" not in repr(kept[0])


def test_a_run_that_is_under_way_or_was_broken_off_is_read_as_far_as_it_is(kept, tmp_path):
    folder = copied(kept[1], tmp_path / "run")
    lines = (folder / "rounds.jsonl").read_text().splitlines(keepends=True)
    (folder / "rounds.jsonl").write_text("".join(lines[:2]) + lines[2][:40])
    assert read_run(folder).state is RunState.BROKEN_OFF  # of an earlier end there is still a summary
    assert History.load(folder).initial == kept[0].initial
    (folder / "summary.json").unlink()
    found = History.load(folder)
    assert [row["round"] for row in found.rounds] == [1, 2]
    assert np.array_equal(found.weights, kept[0].weights)
    (folder / "weights.npy").unlink()
    assert not np.array_equal(History.load(folder).weights, kept[0].weights)
    settings = json.loads((folder / "settings.json").read_text())
    held = RunFolder(folder, settings, resume=True)
    assert read_run(folder).state is RunState.UNDER_WAY
    held.close()
    assert read_run(folder).state is RunState.BROKEN_OFF


def test_a_run_that_reached_its_target_or_failed_is_told_from_one_that_is_done(
    kept, plain_sgd_file, owned_once, tmp_path
):
    assert read_run(kept[1]).state is RunState.DONE
    settings = SETTINGS | {"workers": 1}
    edgefl.simulate(plain_sgd_file, owned_once, out=tmp_path / "early", until={"loss": 9.0}, **settings)
    found = read_run(tmp_path / "early")
    assert (found.state, found.stopped, len(found.rounds)) == (RunState.REACHED, "loss reached 9", 1)
    with pytest.raises(RunError):
        edgefl.simulate(
            plain_sgd_file, owned_once, out=tmp_path / "failed", max_update_norm=1e-6, deadline_seconds=30, **settings
        )
    failed = read_run(tmp_path / "failed")
    assert failed.state is RunState.FAILED
    assert all(row["state"] == "failed" for row in failed.rounds)


@pytest.mark.parametrize(
    ("settings", "rounds", "why"),
    [
        ({"rounds": 3, "max_update_norm": 1e-6, "deadline_seconds": 30}, 3, "3 rounds in a row failed"),
        ({"rounds": 20, "minimum_examples": 1000}, 0, "takes part with at least 1000"),
    ],
)
def test_an_error_that_ends_a_run_in_its_last_round_or_before_any_is_kept_and_said_again(
    plain_sgd_file, owned_once, tmp_path, settings, rounds, why
):
    given = {**SETTINGS, "workers": 1, **settings}
    with pytest.raises(RunError, match=why):
        edgefl.simulate(plain_sgd_file, owned_once, out=tmp_path / "run", **given)
    run = read_run(tmp_path / "run")
    assert (run.state, len(run.rounds)) == (RunState.FAILED, rounds)
    assert why in run.failed
    assert History.load(tmp_path / "run").failed == run.failed
    (told,) = Compared.of([run])
    assert told.standing.startswith(f"failed after {rounds} of {given['rounds']} rounds: ")
    with pytest.raises(RunError, match=why):
        edgefl.simulate(plain_sgd_file, owned_once, out=tmp_path / "run", resume=True, **given)
    assert read_run(tmp_path / "run").state is RunState.FAILED


def test_the_newest_weights_lie_in_the_folder_wherever_the_run_may_be_broken_off(tmp_path):
    folder = RunFolder(tmp_path / "run", {}, resume=False)
    for value in (1, 2):
        weights = np.full(4, value, np.float32)
        assert folder.keep(Checkpoint(StrategyState(weights, 4)), at_once=True)
        np.testing.assert_array_equal(np.load(tmp_path / "run" / "weights.npy"), weights)
    folder.close()


def test_two_simulations_do_not_write_to_one_folder(kept, tmp_path):
    folder = copied(kept[1], tmp_path / "run")
    settings = json.loads((folder / "settings.json").read_text())
    held = RunFolder(folder, settings, resume=True)
    with pytest.raises(InvalidSettingError, match="Another process writes to"):
        RunFolder(folder, settings, resume=True)
    held.close()
    RunFolder(folder, settings, resume=True).close()


def test_what_is_no_run_or_is_damaged_is_named(kept, tmp_path):
    with pytest.raises(InvalidSettingError, match="no such folder"):
        History.load(tmp_path / "nowhere")
    with pytest.raises(InvalidSettingError, match=r"no settings\.json in it"):
        History.load(tmp_path)
    for number, (file, content, message) in enumerate(
        [
            ("rounds.jsonl", '{"round": 1}\nnonsense\n', r"rounds\.jsonl is damaged in line 2"),
            ("rounds.jsonl", "[1]\n", "expected the row of a round"),
            ("rounds.jsonl", '{"round": 1, "central": 5}\n', "expected the row of a round"),
            ("rounds.jsonl", '{"round": 1, "central": {"loss": "low"}}\n', "expected the row of a round"),
            ("rounds.jsonl", b"\xff\xfe\n", r"rounds\.jsonl is damaged"),
            ("settings.json", "[]", "expected names and values"),
            ("summary.json", "{", r"summary\.json is damaged"),
            ("weights.npy", "no array", r"weights\.npy cannot be read"),
        ]
    ):
        folder = copied(kept[1], tmp_path / str(number))
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(StorageError, match=message):
            History.load(folder)
    folder = copied(kept[1], tmp_path / "odd")
    (folder / "summary.json").write_text(
        (folder / "summary.json").read_text().replace('"devices_per_second": ', '"devices_per_second": null, "x": ')
    )
    (folder / "rounds.jsonl").write_text('{"round": 1}\n')
    assert History.load(folder).summary()["devices_per_second"] == 0
    (folder / "weights.npy").write_bytes((folder / "checkpoint.npz").read_bytes())  # several arrays
    with pytest.raises(StorageError, match=r"weights\.npy cannot be read, or is damaged: it holds several arrays"):
        History.load(folder)
    folder = copied(kept[1], tmp_path / "other")
    np.save(folder / "weights.npy", np.zeros(3, np.float32))
    with pytest.raises(StorageError, match=r"Expected [\d,]+ float32 weights .* got float32 \(3,\)"):
        History.load(folder)
