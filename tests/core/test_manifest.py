"""The golden manifest is the format: readers in the field know it."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefl.errors import FormatVersionError, ModelFileError
from edgefl.layout import Parameter, ParameterLayout
from edgefl.manifest import FORMAT_VERSION, Metric, ModelManifest, Signature, StateVariable, Target, TensorSpec

GOLDEN = Path(__file__).parent / "golden" / "manifest.json"

PARAMETERS = (
    Parameter("dense/kernel", "sequential_3/dense_7/kernel", (4, 3), buffer=5),
    Parameter("norm/moving_mean", "sequential_3/norm/moving_mean", (3,), "statistic", buffer=6),
    Parameter("head/bias", "sequential_3/head/bias", (3,), shared=False, buffer=7),
)
MANIFEST = ModelManifest(
    parameters=PARAMETERS,
    signatures={
        "train": Signature(
            inputs=(TensorSpec("x", "x", (8, 4), "float32"), TensorSpec("seed", "seed", (1,), "int32")),
            outputs=(TensorSpec("loss", "loss", (1,), "float32"),),
        ),
        "train_1": Signature(inputs=(TensorSpec("x", "x", (1, 4), "float32"),)),
        "train_4": Signature(inputs=(TensorSpec("x", "x", (4, 4), "float32"),)),
        "get_weights": Signature(outputs=(TensorSpec("dense/kernel", "dense_kernel", (4, 3), "float32"),)),
    },
    inputs=("x",),
    outputs=("head",),
    input_structure={"readings": 0},
    output_structure={"kind": 0},
    targets=(Target("y", "head", classes=3, bounds=(0.0, 1.0), ignored=-1),),
    batch_size=8,
    further_batch_sizes=(1, 4),
    index_sizes={"x": (None, 7, 7, None)},
    micro_batch=2,
    mixes_rows=True,
    of_whole_batches=("the loss 'dice'",),
    loss={"class_name": "SparseCategoricalCrossentropy", "config": {"name": "loss"}},
    optimizer={"class_name": "SGD", "config": {"momentum": 0.5}},
    learning_rate=0.125,
    metrics=(Metric("accuracy", "mean", ("accuracy/total", "accuracy/count"), {"curve": "ROC"}, "up"),),
    state=(StateVariable("sgd/momentum/dense/kernel", (4, 3), "float32"),),
    frozen=("sequential_3/base/kernel",),
    keras_config={"class_name": "Sequential", "config": {"layers": []}},
    custom_objects=("my.module>Layer",),
    producer={"edgefl": "0.1.0", "keras": "3.15.1"},
    fine_tuning={"frozen": ["conv*"], "lora": {"alpha": 8.0, "rank": 4, "targets": ["dense"]}},
    target="litert-2",
    graph_hash="1a" * 32,
    layout_hash=ParameterLayout(PARAMETERS).hash,
    weights_hash="2b" * 32,
)

SIXTH = replace(MANIFEST, targets=(Target("y", "head", classes=3, bounds=(0.0, 1.0)),))
FIFTH = replace(MANIFEST, targets=(Target("y", "head", classes=3),))
FOURTH = replace(FIFTH, index_sizes={})
THIRD = replace(
    FOURTH,
    further_batch_sizes=(),
    signatures={name: each for name, each in MANIFEST.signatures.items() if name not in ("train_1", "train_4")},
    input_structure=None,
    output_structure=None,
    of_whole_batches=(),
    metrics=tuple(replace(metric, direction="") for metric in MANIFEST.metrics),
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(MANIFEST.to_json()), **changes}


def test_the_golden_manifest_is_read_and_written_to_the_byte() -> None:
    golden = GOLDEN.read_bytes()
    assert ModelManifest.from_json(golden) == MANIFEST
    assert MANIFEST.to_json() == golden


def test_a_manifest_of_the_first_version_is_read_with_defaults_for_what_came_later() -> None:
    first = ModelManifest.from_json(GOLDEN.with_name("manifest_1_0.json").read_bytes())
    assert first == replace(THIRD, target="all", fine_tuning={}, micro_batch=None)


def test_a_manifest_of_the_second_version_computes_all_rows_at_once() -> None:
    second = ModelManifest.from_json(GOLDEN.with_name("manifest_1_1.json").read_bytes())
    assert second == replace(THIRD, micro_batch=None)


def test_a_manifest_of_the_third_version_has_plain_lists_and_metrics_without_a_direction() -> None:
    assert ModelManifest.from_json(GOLDEN.with_name("manifest_1_2.json").read_bytes()) == THIRD


def test_a_manifest_of_the_fourth_version_says_nothing_of_what_is_looked_up() -> None:
    assert ModelManifest.from_json(GOLDEN.with_name("manifest_1_3.json").read_bytes()) == FOURTH


def test_a_manifest_of_the_fifth_version_has_targets_without_bounds() -> None:
    assert ModelManifest.from_json(GOLDEN.with_name("manifest_1_4.json").read_bytes()) == FIFTH


def test_a_manifest_of_the_sixth_version_has_targets_of_which_nothing_is_ignored() -> None:
    assert ModelManifest.from_json(GOLDEN.with_name("manifest_1_5.json").read_bytes()) == SIXTH


@pytest.mark.parametrize("ignored", ["-1", 0.5, True, [1]])
def test_an_ignored_label_that_is_none_is_refused(ignored: Any) -> None:
    targets = [{"name": "y", "output": "head", "classes": 3, "ignored": ignored}]
    with pytest.raises(ModelFileError, match="lacks or mistypes"):
        ModelManifest.from_json(json.dumps(document(targets=targets)))


@pytest.mark.parametrize("bounds", [[1, 0], [0, 0], [0], "ab", 1, [float("nan"), 1]])
def test_bounds_that_are_none_are_refused(bounds: Any) -> None:
    targets = [{"name": "y", "output": "head", "bounds": bounds}]
    with pytest.raises(ModelFileError, match="lacks or mistypes"):
        ModelManifest.from_json(json.dumps(document(targets=targets)))


@pytest.mark.parametrize("sizes", [{"x": 0}, {"x": None}, {"x": "7"}, {"x": [7]}, {"x": [0, 1, 1, 1]}, {"z": 7}, [7]])
def test_entries_that_fit_no_input_are_refused(sizes: Any) -> None:
    with pytest.raises(ModelFileError, match="lacks or mistypes"):
        ModelManifest.from_json(json.dumps(document(index_sizes=sizes)))


def test_a_file_of_several_batch_sizes_is_seen_as_one_of_each() -> None:
    one = MANIFEST.of_batch_size(1)
    assert (one.batch_size, one.further_batch_sizes) == (1, ())
    assert one.signatures["train"] == MANIFEST.signatures["train_1"]
    assert MANIFEST.of_batch_size(8) is MANIFEST
    assert [MANIFEST.batch_size_for(rows) for rows in (1, 2, 4, 5, 8, 9)] == [1, 4, 4, 8, 8, 8]


@pytest.mark.parametrize("sizes", [[4, 1], [8], [0], [2], ["a"], 3])
def test_batch_sizes_that_the_file_has_not_are_refused(sizes: Any) -> None:
    with pytest.raises(ModelFileError, match="lacks or mistypes"):
        ModelManifest.from_json(json.dumps(document(further_batch_sizes=sizes)))


@pytest.mark.parametrize("structure", [{"kind": 1}, [0, 0], [], "head", {"kind": None}])
def test_a_structure_that_is_not_one_of_the_outputs_is_refused(structure: Any) -> None:
    with pytest.raises(ModelFileError, match="lacks or mistypes"):
        ModelManifest.from_json(json.dumps(document(output_structure=structure)))


def test_every_field_is_in_the_golden_manifest_with_a_value_of_its_own() -> None:
    for field in fields(MANIFEST):
        if field.name != "unknown":
            assert getattr(MANIFEST, field.name) != field.default, field.name


@given(
    batch_size=st.integers(1, 10**6),
    mixes_rows=st.booleans(),
    learning_rate=st.floats(0, 1e6),
    names=st.lists(st.text(min_size=1), max_size=4).map(tuple),
    config=json_values,
    unknown=st.dictionaries(st.text(min_size=1).map("later_{}".format), json_values, max_size=3),
)
def test_a_manifest_survives_its_json(
    batch_size: int,
    mixes_rows: bool,
    learning_rate: float,
    names: tuple[str, ...],
    config: Any,
    unknown: dict[str, Any],
) -> None:
    manifest = replace(
        MANIFEST,
        batch_size=batch_size,
        further_batch_sizes=(),
        mixes_rows=mixes_rows,
        learning_rate=learning_rate,
        inputs=names,
        input_structure=None,
        keras_config=config,
        unknown=unknown,
    )
    again = ModelManifest.from_json(manifest.to_json())
    assert again == manifest
    assert again.to_json() == manifest.to_json()


def test_fields_of_a_newer_minor_version_are_kept_and_ignored() -> None:
    parameters = [{**parameter, "sparse": False} for parameter in document()["parameters"]]
    newer = document(format_version=[FORMAT_VERSION[0], 99], compression={"scheme": "x"}, parameters=parameters)
    manifest = ModelManifest.from_json(json.dumps(newer))
    assert manifest.parameters == MANIFEST.parameters
    assert manifest.unknown == {"compression": {"scheme": "x"}}


def test_fields_that_an_older_minor_version_lacked_have_defaults() -> None:
    older = document()
    for name in ("custom_objects", "frozen", "metrics", "state", "mixes_rows", "producer"):
        del older[name]
    manifest = ModelManifest.from_json(json.dumps(older))
    assert manifest.metrics == ()
    assert manifest.mixes_rows is False


@pytest.mark.parametrize("version", [[0, 9], [2, 0]])
def test_another_major_version_is_refused(version: list[int]) -> None:
    with pytest.raises(FormatVersionError, match=rf"version {version[0]}\.{version[1]}, this edgefl reads 1\.x"):
        ModelManifest.from_json(json.dumps(document(format_version=version)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        json.dumps(document(format="other")),
        json.dumps(document(format_version="1")),
        json.dumps(document(batch_size=0)),
        json.dumps(document(batch_size="many")),
        json.dumps(document(batch_size=float("inf"))),
        json.dumps(document(format_version=[float("inf"), 1])),
        json.dumps(document(learning_rate="fast")),
        json.dumps(document(learning_rate=[0.1])),
        json.dumps(document(learning_rate=10**400)),
        b"[" * 100_000,
        json.dumps(document(metrics=[{"name": "a", "finaliser": [], "states": []}])),
        json.dumps(document(targets=[{"name": [], "output": "y"}])),
        json.dumps(document(signatures={})),
        json.dumps(document(parameters=[{"name": "a"}])),
        json.dumps(document(parameters=7)),
        json.dumps(document(signatures=[])),
        json.dumps(document(hashes={})),
        json.dumps({name: value for name, value in document().items() if name != "inputs"} | {"inputs": 3}),
    ],
)
def test_what_is_no_manifest_is_refused_with_what_to_do(data: bytes | str) -> None:
    with pytest.raises(ModelFileError) as caught:
        ModelManifest.from_json(data)
    assert "edgefl convert" in (caught.value.hint or "")


def test_a_layout_that_does_not_fit_its_hash_is_refused() -> None:
    changed = document()
    changed["parameters"][0]["shape"] = [3, 4]
    with pytest.raises(ModelFileError, match="layout hash"):
        ModelManifest.from_json(json.dumps(changed))
