from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.smartwatch.contenders import Accuracies
from examples.smartwatch.report import Result

ROOT = Path(__file__).resolve().parents[3]
KEYS = [
    "initial_accuracy",
    "alone_accuracy_mean",
    "federated_accuracy",
    "centralised_accuracy",
    "unseen_people_accuracy",
    "rounds",
    "devices",
    "bytes_up_per_device",
    "device_peak_rss_mb",
    "seconds",
]


def run_demo(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, ROOT / "examples" / "smartwatch" / "run.py", "--out", out, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "summary.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The demo with two rounds of one pass, started from another folder than the repository's."""
    out = tmp_path_factory.mktemp("elsewhere") / "demo"
    out.mkdir()
    (out / "summary.json").write_text("of an earlier run")
    (out / "notes.txt").write_text("mine")
    return out, *run_demo(out, "--rounds", "2", "--epochs", "1")


def test_the_demo_leaves_model_keras_model_summary_and_picture(short: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, _ = short
    assert (out / "model.tflite").read_bytes()[4:8] == b"TFL3"
    assert (out / "model.keras").read_bytes()[:2] == b"PK"
    assert (out / "accuracy.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert list(summary)[: len(KEYS)] == KEYS


def test_the_summary_is_of_this_run(short: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, _ = short
    assert summary["rounds"] == len(summary["accuracy_per_round"]) == 2
    assert summary["devices"] == len(list((out / "fleet" / "devices").iterdir())) == 8
    assert summary["accuracy_per_round"][-1] == summary["federated_accuracy"]
    weights_bytes = (out / "fleet" / "weights.npy").stat().st_size
    assert 2 * weights_bytes < summary["bytes_up_per_device"] < 2 * weights_bytes + 10_000
    assert summary["device_peak_rss_mb"] <= 80


def test_one_line_for_each_round_and_a_table_at_the_end(short: tuple[Path, dict[str, Any], str]) -> None:
    _, _, output = short
    assert "round  1/2: 8 updates merged" in output
    assert "round  2/2: 8 updates merged" in output
    assert "other shoulder" in output
    assert "all data in one place" in output
    assert "\x1b" not in output  # no terminal, no colours


def test_an_earlier_run_is_replaced_and_other_files_are_left_alone(short: tuple[Path, dict[str, Any], str]) -> None:
    assert (short[0] / "notes.txt").read_text() == "mine"


def test_every_device_has_trained_in_every_round(short: tuple[Path, dict[str, Any], str]) -> None:
    logs = list((short[0] / "fleet" / "devices").glob("*/device.log"))
    assert len(logs) == 8
    for log in logs:
        assert log.read_text().count("done, accepted") == 2


def test_the_summary_counts_every_person_the_same() -> None:
    def accuracies(*values: float) -> Accuracies:
        return Accuracies(values, (0.25, 0.75))

    result = Result(
        initial=accuracies(0.0, 0.2),
        alone=accuracies(0.3, 0.5),
        rounds=(accuracies(0.4, 0.6), accuracies(0.7, 0.9)),
        centralised=accuracies(0.8, 1.0),
        devices=2,
        bytes_up_per_device=100,
        device_peak_rss_mb=61.26,
        seconds=12.34,
    )
    summary = result.summary()
    assert {key: summary[key] for key in KEYS} == {
        "initial_accuracy": 0.1,
        "alone_accuracy_mean": 0.4,
        "federated_accuracy": 0.8,
        "centralised_accuracy": 0.9,
        "unseen_people_accuracy": 0.5,
        "rounds": 2,
        "devices": 2,
        "bytes_up_per_device": 100,
        "device_peak_rss_mb": 61.3,
        "seconds": 12.3,
    }


@pytest.mark.slow
def test_the_federated_model_is_far_ahead_of_training_alone_and_close_to_centralised(tmp_path: Path) -> None:
    summary, _ = run_demo(tmp_path / "demo")
    assert summary["federated_accuracy"] >= summary["alone_accuracy_mean"] + 0.30
    assert summary["federated_accuracy"] >= summary["centralised_accuracy"] - 0.05
    assert summary["device_peak_rss_mb"] <= 80
