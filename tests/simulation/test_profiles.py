"""Profiles: what a file may say, what is refused and how it is told, and what becomes of tasks on such devices."""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefl.errors import DataError, InvalidSettingError
from edgefl.model_file import ModelFile
from edgefl_server.aggregation.hyperparameters import settings_of
from edgefl_simulation.attacks import ATTACKS, SignFlip
from edgefl_simulation.pace import Work
from edgefl_simulation.profiles import SHIPPED, Compute, Cost, Deployment, Network, Reliability, cost_of, profile_of
from edgefl_simulation.profiles.availability import AVAILABILITIES
from edgefl_simulation.profiles.traces import read_trace
from model_files import make_model_file

COST = Cost(flops=10_000_000, memory_bytes=100_000_000)


def deployed(profile, devices=10, seed=3, cost=COST):
    return Deployment(profile_of(profile), [f"device-{number}" for number in range(devices)], seed, cost)


def work(device=0, task="a", now=0.0, steps=100, down=1_000_000):
    return Work(3, task, device, now, steps, down)


def test_what_is_shipped_can_be_read_and_says_where_each_number_is_from():
    assert set(SHIPPED) == {"pi-zero-2", "pi3", "pi4", "pi5", "phone"}
    for name in SHIPPED:
        profile = profile_of(name)
        (device,) = profile.devices
        assert (profile.name, device.name) == (name, name)
        assert device.summary
        for part in ("compute", "network", "reliability"):
            settings = getattr(device, part)
            for each in settings_of(type(settings)):
                if getattr(settings, each.name) != each.default:
                    assert device.sources[f"{part}.{each.name}"], f"{name}: {part}.{each.name}"
        assert ("availability" in device.sources) == (device.availability.kind != "always")


def test_boards_are_as_fast_in_the_order_in_which_they_came():
    speeds = [profile_of(name).devices[0].compute.gflops for name in ("pi-zero-2", "pi3", "pi4", "pi5")]
    assert speeds == sorted(speeds)


def test_a_task_takes_its_download_its_steps_and_its_upload():
    profile = {
        "devices": [
            {
                "name": "x",
                "compute": {"gflops": 2.0, "step_overhead_ms": 5.0, "task_overhead_seconds": 3.0, "watts": 2.0},
                "network": {"down_mbit_s": 8.0, "up_mbit_s": 4.0, "latency_ms": 50.0},
            }
        ]
    }
    course = deployed(profile).course(work(now=10.0))
    assert course.received == pytest.approx(10 + 0.1 + 1.0)
    assert course.computed == pytest.approx(course.received + 3 + 100 * (0.005 + 0.005))
    assert course.sent(500_000) == pytest.approx(course.computed + 0.05 + 1.0)
    assert course.gone == math.inf
    assert course.active_seconds(course.sent(500_000)) == pytest.approx(1.1 + 4.0 + 1.05)
    assert (course.profile, course.watts) == ("x", 2.0)


def test_kinds_and_attackers_have_their_shares_exactly_and_the_seed_says_who_is_who():
    profile = {
        "devices": [{"like": "pi4", "share": 0.6}, {"like": "phone", "share": 0.4}],
        "attackers": [
            {"kind": "sign-flip", "share": 0.5, "among": "phone"},
            {"kind": "noise", "share": 0.1},
        ],
    }

    def who(seed):
        fleet = deployed(profile, devices=1000, seed=seed)
        assert fleet.count() == {"pi4": 600, "phone": 400}
        attacks = [fleet.attack(number) for number in range(1000)]
        kinds = [fleet.course(work(device=number)).profile for number in range(1000)]
        flipping = [kind for kind, attack in zip(kinds, attacks, strict=True) if isinstance(attack, SignFlip)]
        assert flipping == ["phone"] * 200
        assert sum(attack is not None for attack in attacks) == 300
        return kinds, [attack is not None for attack in attacks]

    assert who(1) == who(1)
    assert who(1)[0] != who(2)[0]
    assert who(1)[1] != who(2)[1]


def test_drops_crashes_and_speeds_are_functions_of_seed_device_and_task():
    profile = {
        "devices": [
            {
                "like": "pi4",
                "compute": {"spread": 0.5, "task_overhead_seconds": 600.0},
                "reliability": {"drop_out": 0.3, "crashes_per_hour": 6.0, "restart_seconds": 30.0},
            }
        ]
    }
    fleet = deployed(profile, devices=200)
    courses = [fleet.course(work(device=number, task=str(number))) for number in range(200)]
    again = deployed(profile, devices=200)
    assert [again.course(work(device=number, task=str(number))) for number in reversed(range(200))] == courses[::-1]
    gone = [course for course in courses if course.gone < math.inf]
    assert 40 <= len(gone) <= 80
    assert all(0 <= course.gone <= course.computed for course in gone)
    crashed = [course for course in courses if course.silences]
    assert 80 <= len(crashed) <= 190
    (first, back), *_ = crashed[0].silences
    assert back - first == pytest.approx(30.0)
    if crashed[0].gone > first:
        assert crashed[0].is_heard(first - 0.1)
        assert not crashed[0].is_heard(first + 0.1)
    assert len({course.received for course in courses}) == 1
    assert len({round(course.computed, 6) for course in courses}) > 150


def test_a_model_that_does_not_fit_into_memory_is_not_trained():
    course = deployed("pi-zero-2", cost=Cost(1, 2_000_000_000)).course(work())
    assert "needs about 2,000 MB" in course.failure
    assert "pi-zero-2" in course.failure
    assert not deployed("pi5", cost=Cost(1, 2_000_000_000)).course(work()).failure


def test_the_cost_of_a_model_file_is_read_without_an_interpreter(plain_sgd_file):
    file = ModelFile.read(plain_sgd_file)
    cost = cost_of(file)
    assert cost.flops > 2 * file.manifest.batch_size * file.manifest.layout.size
    assert 57e6 < cost.memory_bytes < 70e6


WRONG = [
    ({}, "expects [[devices]] or [[attackers]]"),
    ({"device": []}, "'device' is not known; expected summary, devices, attackers. Did you mean devices?"),
    (
        {"devices": [{"like": "pi44"}]},
        "like expects a shipped profile, phone, pi-zero-2, pi3, pi4, pi5, got 'pi44'. Did",
    ),
    ({"devices": [{"like": "pi4", "share": 0.6}]}, "shares of all devices expect to add up to 1, got 0.6"),
    ({"devices": [{"like": "pi4", "share": 0}]}, "devices[0] (pi4): share expects a number above 0 up to 1, got 0"),
    ({"devices": [{"like": "pi4", "compute": {"gflop": 1}}]}, "compute: 'gflop' is not known"),
    ({"devices": [{"like": "pi4", "compute": {"gflop": 1}}]}, "Did you mean gflops?"),
    ({"devices": [{"like": "pi4", "compute": {"gflops": "fast"}}]}, "compute: gflops expects a number, got 'fast'"),
    (
        {"devices": [{"like": "pi4", "compute": {"gflops": -1}}]},
        "compute: gflops expects a number from 0.0001 to 1e+06",
    ),
    ({"devices": [{"like": "pi4", "network": {"up_mbit_s": math.nan}}]}, "network: up_mbit_s expects a number"),
    ({"devices": [{"like": "pi4", "network": 3}]}, "network expects a table, got 3"),
    (
        {"devices": [{"like": "pi4", "reliability": {"drop_out": 1}}]},
        "drop_out expects a number from 0 to 0.999, got 1",
    ),
    ({"devices": [{"name": "mine", "compute": {"gflops": 1}}]}, "devices[0] (mine) expects a table network"),
    ({"devices": [{"name": "mine", "compute": {}, "network": {}}]}, "compute expects a value gflops"),
    ({"devices": [{"compute": {}}]}, "devices[0] expects a name"),
    ({"devices": [{"like": "pi4", "share": 0.5}] * 2}, "two kinds of devices are called 'pi4'"),
    (
        {"devices": [{"like": "pi4", "availability": {"kind": "dirunal"}}]},
        "always, diurnal, markov, trace, got 'dirunal'",
    ),
    ({"devices": [{"like": "pi4", "availability": {"kind": "markov"}}]}, "expects a value mean_on_seconds"),
    (
        {"devices": [{"like": "pi4", "availability": {"kind": "diurnal", "hours": 25}}]},
        "hours expects a number from 0.01",
    ),
    ({"devices": [{"like": "pi4", "availability": {"kind": "trace"}}]}, "expects the file of the trace"),
    ({"attackers": [{"kind": "signflip", "share": 0.1}]}, "got 'signflip'. Did you mean sign-flip?"),
    ({"attackers": [{"kind": "noise"}]}, "attackers[0]: share expects a number above 0 up to 1, got None"),
    (
        {"attackers": [{"kind": "noise", "share": 0.1, "gamma": 2}]},
        "'gamma' is not known; expected kind, share, among, f",
    ),
    ({"attackers": [{"kind": "free-rider", "share": 0.1, "replay": 1}]}, "replay expects true or false, got 1"),
    (
        {"attackers": [{"kind": "noise", "share": 0.6}, {"kind": "scaling", "share": 0.6}]},
        "at most 1 together, got 1.2",
    ),
    (
        {"attackers": [{"kind": "noise", "share": 0.1, "among": "pi4"}]},
        "among expects one of the devices (there are none)",
    ),
    ({"devices": [{"like": "pi4", "sources": {"compute.speed": "?"}}]}, "sources: 'compute.speed' is not known"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=[message[-40:] for _, message in WRONG])
def test_what_a_profile_cannot_say_is_refused_and_the_place_is_named(given, message):
    with pytest.raises(InvalidSettingError) as caught:
        profile_of(given)
    assert message in str(caught.value)
    assert str(caught.value).startswith("profile")


def test_a_file_is_read_with_what_it_changes_and_its_trace_beside_it(tmp_path):
    (tmp_path / "times.csv").write_text("device,from,to,state\nkitchen,0,10,on\nkitchen,10,20,off\n")
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[devices]]\nlike = "pi4"\nname = "kitchen"\n'
        'compute = { gflops = 3.0 }\navailability = { kind = "trace", file = "times.csv" }\n'
    )
    profile = profile_of(file)
    (device,) = profile.devices
    assert (profile.name, device.name, device.compute.gflops) == ("mine", "kitchen", 3.0)
    assert device.compute.watts == profile_of("pi4").devices[0].compute.watts
    assert device.availability.seconds == 20
    assert "compute.gflops" not in device.sources, "that is where the shipped number was from"
    assert "compute.watts" in device.sources
    assert json.loads(json.dumps(profile.to_json()))["devices"][0]["availability"]["sha256"]
    file.write_text("[[devices]\n")
    with pytest.raises(InvalidSettingError, match=r"mine\.toml is no TOML: .*line 1"):
        profile_of(file)
    with pytest.raises(InvalidSettingError, match="There is no profile and no file 'pi6'"):
        profile_of("pi6")


TRACE = "device,from,to,state\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a,0,10,on\na,12,20,off\n", "line 3: device 'a' has a hole from 10 (line 2) to 12"),
        ("a,0,10,on\na,8,20,off\n", "line 3: device 'a' overlaps line 2: it begins at 8, before 10"),
        ("a,0,10,on\nb,0,30,on\na,20,30,off\na,10,20,on\n", "line 4: device 'a' has a hole from 10"),
        ("a,0,20,on\na,20,30,off\na,10,20,on\n", "line 4: device 'a' goes back from 20 (line 3) to 10"),
        ("a,5,10,on\n", "line 2: device 'a' has a hole from 0 to 5"),
        ("a,0,10,on\nb,0,20,on\n", "line 2: device 'a' has a hole from 10 to 20, where device 'b' ends (line 3)"),
        ("a,0,10,on\na,10,10,off\n", "line 3: to expects more than from, 10, got 10"),
        ("a,0,ten,on\n", "line 2: to expects seconds, got 'ten'"),
        ("a,0,inf,on\n", "line 2: to expects seconds of at least 0, got inf"),
        ("a,0,,on\n", "line 2: to expects seconds, got ''"),
        ("a,0,10,maybe\n", "line 2: state expects on or off, got 'maybe'"),
        (",0,10,on\n", "line 2: expected the name of a device"),
        ("a,0,10\n", "line 2: expected 4 values"),
        ("", "has no line of a device"),
    ],
)
def test_a_trace_that_is_not_whole_is_refused_and_the_line_is_named(tmp_path, lines, message):
    (tmp_path / "trace.csv").write_text(TRACE + lines)
    with pytest.raises(DataError) as caught:
        profile_of(
            {"devices": [{"like": "pi4", "availability": {"kind": "trace", "file": str(tmp_path / "trace.csv")}}]}
        )
    assert message in str(caught.value)


def test_a_trace_without_its_first_line_or_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "trace.csv").write_text("a,0,10,on\n")
    with pytest.raises(DataError, match="line 1: expected device,from,to,state"):
        read_trace(tmp_path / "trace.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")


def test_the_verb_shows_numbers_and_sources_within_a_terminal_and_steps_of_a_model(tmp_path, capsys):
    from edgefl.cli.output import Format
    from edgefl_simulation.cli_profiles import profiles

    (tmp_path / "model.tflite").write_bytes(make_model_file())
    profiles("pi4", None, Format.text)
    shown = capsys.readouterr().out
    assert "compute.gflops: ncnn's benchmark" in shown
    assert max(map(len, shown.splitlines())) <= 80
    profiles("", None, Format.json)
    assert set(json.loads(capsys.readouterr().out)) == set(SHIPPED)
    profiles("", None, Format.text)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


PAGE = (Path(__file__).parents[2] / "docs" / "profiles.md").read_text()


def block(beginning):
    """A fenced block of the page that begins with a line so."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if block.startswith(beginning))
    return found


def test_the_page_s_profile_and_trace_can_be_read_and_its_table_says_what_is_shipped(tmp_path):
    (tmp_path / "fleet.toml").write_text(block("summary ="))
    profile = profile_of(tmp_path / "fleet.toml")
    assert [device.name for device in profile.devices] == ["pi4", "phone"]
    assert profile.attackers[0].attack == SignFlip(factor=10.0)
    (tmp_path / "devices.csv").write_text(block("device,from,to,state"))
    assert read_trace(tmp_path / "devices.csv").seconds == 86_400
    for name in SHIPPED:
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        (device,) = profile_of(name).devices
        compute, network = device.compute, device.network
        assert [float(cell.replace(",", "")) for cell in cells[:3]] == [
            compute.gflops,
            compute.memory_mb,
            compute.watts,
        ]
        assert [float(each) for each in cells[3].split(", ")] == [network.down_mbit_s, network.up_mbit_s]
        assert float(cells[4]) == network.latency_ms


def test_every_setting_and_attack_is_on_the_page():
    for part in (Compute, Network, Reliability):
        for each in settings_of(part):
            assert f"{part.__name__.lower()}.{each.name}`" in PAGE
    for kind in (*AVAILABILITIES, "trace"):
        assert f'kind = "{kind}"' in PAGE
    for kind, attack in ATTACKS.items():
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{kind}`"))
        assert all(f"`{each.name}" in row for each in settings_of(attack))


def test_the_command_simulates_with_a_profile_and_refuses_one_that_is_none_before_it_writes(
    plain_sgd_file, owned, tmp_path
):
    rows = owned(3, 40)
    np.savez(tmp_path / "data.npz", x=rows["x"], y=rows["y"])
    (tmp_path / "fleet.toml").write_text(block("summary ="))

    def run(*more):
        words = [
            *(
                "simulate",
                plain_sgd_file,
                "--data",
                tmp_path / "data.npz",
                "--devices",
                6,
                "--rounds",
                2,
                "--cohort",
                3,
            ),
            *("--workers", 1, "--quiet", "-o", tmp_path / "run", *more),
        ]
        command = [sys.executable, "-m", "edgefl.cli.main", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = run("--profile", "pi44")
    assert (refused.returncode, "Did you mean pi4" in refused.stderr) == (4, True)
    refused = run("--profile", "pi4", "--drop-out", 0.5)
    assert (refused.returncode, "and so do --step-seconds, --overhead-seconds" in refused.stderr) == (4, True)
    assert not (tmp_path / "run").exists()
    assert run("--profile", tmp_path / "fleet.toml").returncode == 0
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert [each["name"] for each in settings["profile"]["devices"]] == ["pi4", "phone"]
    for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines():
        assert sum(json.loads(line)["profiles"].values()) == 3


def test_the_numbers_of_devices_do_not_depend_on_numpy_s_global_state():
    np.random.seed(1)
    before = deployed({"devices": [{"like": "phone"}]}).course(work())
    np.random.seed(2)
    assert deployed({"devices": [{"like": "phone"}]}).course(work()) == before


def test_importing_profiles_imports_no_interpreter():
    code = "import sys, edgefl_simulation.profiles; print({n.split('.')[0] for n in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tflite_runtime", "ai_edge_litert", "tensorflow"} & ast.literal_eval(done.stdout)
