"""Weights by difference (RFC 3229): whoever holds earlier ones, is far behind, joins late or speaks no such thing."""

from __future__ import annotations

import numpy as np
import pytest

from edgefl.layout import Parameter
from edgefl.wire.differences import split
from edgefl_server.aggregation import RunSettings
from edgefl_server.storage import create_run, run_history
from fake_device import outcome_for
from model_files import make_model_file

MODEL = [Parameter("kernel", "m/kernel", (30, 400)), Parameter("variance", "m/var", (5,), role="statistic")]


@pytest.fixture
def rounds(api):
    """The hashes of the versions of a run of four rounds, and a device with a task that starts from the latest."""

    def make(**settings):
        run = RunSettings.of(rounds=6, target=1, seed=7, **settings)
        create_run(api.fleet.state, make_model_file(MODEL), "people", run)
        headers, hashes = api.device(1), []
        for number in range(5):
            task = api.task(headers, wait=20)
            hashes.append(task.base_weights_hash)
            if number < 4:
                weights = np.frombuffer(api.fleet.state.weights.get(task.base_weights_hash), "<f4")
                assert api.put(headers, task, outcome_for(task, weights, statistic_size=5)).status_code == 202
        return hashes, headers

    return make


def fetch(api, headers, wanted, held=(), **more):
    asked = {"A-IM": "edgefl", "If-None-Match": ", ".join(f'"{each}"' for each in held)} if held else {}
    return api.client.get(f"/v1/weights/{wanted}", headers={**headers, **asked, **more})


def vector(api, digest):
    return np.frombuffer(api.fleet.state.weights.get(digest), "<f4")


def led_to(answer, weights):
    for each in split(answer.content):
        weights = each.applied(weights)
    return weights


@pytest.mark.parametrize("down_codec", ["float32", "drive"])
def test_a_history_says_how_many_bytes_devices_fetched_for_a_version(api, down_codec):
    create_run(
        api.fleet.state,
        make_model_file(MODEL),
        "people",
        RunSettings.of(rounds=3, target=1, seed=7, down_codec=down_codec),
    )
    headers, held, fetched = api.device(1), [], []
    for number in range(2):
        task = api.task(headers, wait=20)
        answers = [fetch(api, headers, task.base_weights_hash, held)]
        if number == 0:
            answers.append(api.client.get(f"/v1/models/{task.model_hash}", headers=headers))
            rest = {**headers, "Range": f"bytes={task.model_bytes - 10}-"}
            answers.append(api.client.get(f"/v1/models/{task.model_hash}", headers=rest))
            refused = api.client.get(f"/v1/models/{task.model_hash}", headers={**headers, "Range": "bytes=9000000-"})
            assert refused.status_code == 416
        held = [task.base_weights_hash]
        fetched.append(sum(len(each.content) for each in answers))
        weights = np.frombuffer(api.fleet.state.weights.get(task.base_weights_hash), "<f4")
        assert api.put(headers, task, outcome_for(task, weights, statistic_size=5)).status_code == 202
    api.task(headers, wait=20)
    versions = run_history(api.fleet.state, task.run)["versions"]
    found = [each["bytes_down"] for each in versions]
    assert found[0] is None
    assert found[2] == fetched[1] == 4 * (12_000 + 5) if down_codec == "float32" else found[2] == fetched[1] < 5000
    assert 0 <= found[1] - fetched[0] < 500, "and the refusal"


@pytest.mark.parametrize("behind", [1, 2, 4])
def test_whoever_holds_an_earlier_version_is_told_how_it_changed(api, rounds, behind):
    hashes, headers = rounds(down_codec="drive")
    held = hashes[-1 - behind]
    answer = fetch(api, headers, hashes[-1], [held])
    assert (answer.status_code, answer.headers["IM"], answer.headers["Delta-Base"]) == (226, "edgefl", f'"{held}"')
    assert answer.headers["ETag"] == f'"{hashes[-1]}"'
    assert len(answer.content) < behind * 48_020 / 30
    np.testing.assert_array_equal(led_to(answer, vector(api, held)), vector(api, hashes[-1]))


def test_of_several_versions_the_latest_is_gone_on_from(api, rounds):
    hashes, headers = rounds(down_codec="drive")
    answer = fetch(api, headers, hashes[-1], ["f" * 64, *hashes[:-1]])
    assert answer.headers["Delta-Base"] == f'"{hashes[-2]}"'


def test_who_joins_late_is_far_behind_goes_on_with_a_part_or_speaks_no_such_thing_fetches_the_weights(api, rounds):
    hashes, headers = rounds(down_codec="int8")
    whole = vector(api, hashes[-1]).tobytes()
    for answer in (
        fetch(api, headers, hashes[-1]),
        fetch(api, headers, hashes[-1], ["f" * 64]),
        fetch(api, headers, hashes[-1], hashes[:1]),  # four steps of a quarter are no shorter
        fetch(api, headers, hashes[-1], hashes[-2:-1], **{"A-IM": "diffe, gzip"}),
    ):
        assert (answer.status_code, answer.content) == (200, whole)
    part = fetch(api, headers, hashes[-1], hashes[-2:-1], Range="bytes=100-")
    assert (part.status_code, part.content) == (206, whole[100:])
    assert fetch(api, headers, hashes[-2], hashes[:1]).status_code == 404  # of which no open task tells


def test_a_difference_that_is_gone_costs_a_longer_download(api, rounds):
    hashes, headers = rounds(down_codec="drive")
    folder = api.fleet.state.folder / "differences"
    next(folder.glob(f"{hashes[-2]}.*")).unlink()
    assert fetch(api, headers, hashes[-1], hashes[-2:-1]).status_code == 226
    assert fetch(api, headers, hashes[-1], hashes[-3:-2]).status_code == 200
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert fetch(api, headers, hashes[-1], hashes[-2:-1]).status_code == 200


def test_without_a_codec_for_the_way_down_there_are_no_differences(api, rounds):
    hashes, headers = rounds()
    assert fetch(api, headers, hashes[-1], hashes[-2:-1]).status_code == 200
    assert not (api.fleet.state.folder / "differences").exists()
