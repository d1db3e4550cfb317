"""Which runtimes a file was verified on is read from the report beside it, if that is the file's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgefl.cli.inspect import describe
from edgefl.cli.inspect_text import as_text
from edgefl.inspecting.reports import evidence_beside, report_path
from edgefl.model_file import ModelFile

RAN = {"target": "litert-2", "ran_on": "ai-edge-litert 2.3.0", "table_only": ""}
NOT = {"target": "tflite-2.14", "ran_on": "", "table_only": "tflite-runtime 2.14 or newer is not installed"}


@pytest.fixture
def file(mlp_file: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "m.tflite"
    copy.write_bytes(mlp_file.read_bytes())
    return copy


def written(file: Path, evidence: Any, **other: str) -> ModelFile:
    model = ModelFile.read(file)
    report = {"graph_hash": model.manifest.graph_hash, "evidence": evidence, **other}
    report_path(file).write_text(json.dumps(report), encoding="utf-8")
    return model


def shown(file: Path, model: ModelFile) -> str:
    return as_text("m.tflite", {**describe(model), "evidence": evidence_beside(file, model), "measured": None})


def test_the_runtimes_that_ran_a_file_are_said_and_those_that_did_not_with_the_reason(file: Path) -> None:
    model = written(file, [NOT, RAN])
    assert evidence_beside(file, model) == [NOT, RAN]
    told = "verified on ai-edge-litert 2.3.0; not run for tflite-2.14: tflite-runtime 2.14 or newer is not installed"
    assert told in shown(file, model)


def test_a_file_that_nothing_ran_is_said_to_be_verified_on_no_runtime(file: Path) -> None:
    model = written(file, [{**RAN, "ran_on": "", "table_only": "nothing was run"}])
    assert "verified on no runtime; not run for litert-2: nothing was run" in shown(file, model)


@pytest.mark.parametrize("report", [None, "", "[]", '{"graph_hash": 1}', '{"graph_hash": "other", "evidence": []}'])
def test_a_report_that_is_missing_broken_or_of_another_file_tells_nothing(file: Path, report: str | None) -> None:
    if report is not None:
        report_path(file).write_text(report, encoding="utf-8")
    model = ModelFile.read(file)
    assert evidence_beside(file, model) is None
    assert "no report of its conversion beside it" in shown(file, model)


def test_a_report_whose_evidence_is_no_evidence_tells_nothing(file: Path) -> None:
    assert evidence_beside(file, written(file, [{"target": "litert-2"}])) is None
