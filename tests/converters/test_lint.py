"""Lint finds what a runtime would refuse or compute wrongly."""

from __future__ import annotations

import dataclasses

import flatbuffers
import pytest
from tensorflow.lite.python import schema_py_generated as schema

import keras_models
from edgefl.manifest import TensorSpec
from edgefl_converters.lint import UnfitTargetError, lint, require_clean


@pytest.fixture(scope="module")
def built():
    return keras_models.built("mlp")


def edited(data, change):
    """The file with its flatbuffer changed."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    change(model)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def rules(data, manifest):
    return {finding.rule for finding in lint(data, manifest)}


def operators(model, name):
    code = getattr(schema.BuiltinOperator, name)
    indices = {index for index, each in enumerate(model.operatorCodes) if each.builtinCode == code}
    return [(graph, each) for graph in model.subgraphs for each in graph.operators or [] if each.opcodeIndex in indices]


def test_a_converted_model_is_clean(built):
    assert lint(built.data, built.manifest) == []
    require_clean(built.data, built.manifest)


def with_version(data, name, version):
    def change(model):
        for code in model.operatorCodes:
            if code.builtinCode == getattr(schema.BuiltinOperator, name):
                code.version = version

    return edited(data, change)


@pytest.mark.parametrize("target", ["all", "tflite-2.14"])
def test_an_op_newer_than_the_target_is_refused_with_its_layer_and_the_target_that_knows_it(built, target):
    data = with_version(built.data, "ADD", 6)
    manifest = dataclasses.replace(built.manifest, target=target)

    assert rules(data, manifest) == {"op-version"}
    with pytest.raises(UnfitTargetError) as refused:
        require_clean(data, manifest, {("ADD", 6): ("layer 'dense' (Dense)", "the optimizer")})

    assert "ADD version 6, made by layer 'dense' (Dense) and the optimizer; tflite-2.14 knows ADD up to version 5" in (
        refused.value.message
    )
    assert "`target='litert-2'`" in refused.value.hint


def test_an_op_that_the_target_knows_is_accepted_whatever_others_know(built):
    data = with_version(built.data, "ADD", 6)

    assert lint(data, dataclasses.replace(built.manifest, target="litert-2")) == []


def test_an_op_that_no_target_knows_has_no_target_as_the_way_out(built):
    with pytest.raises(UnfitTargetError) as refused:
        require_clean(with_version(built.data, "ADD", 90), built.manifest)

    assert "litert-2 knows ADD up to version 6, not 90" in refused.value.message
    assert "`target" not in refused.value.hint
    assert "other ops" in refused.value.hint


@pytest.mark.parametrize("name", ["FlexReluGrad", "SomethingElse"])
def test_a_custom_op_is_found_by_name(built, name):
    def change(model):
        model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[0].customCode = name

    findings = [each for each in lint(edited(built.data, change), built.manifest) if each.rule == "custom-op"]

    assert len(findings) == 1
    assert name in findings[0].message


def test_a_variable_that_nothing_initialises_is_found(built):
    def change(model):
        once = operators(model, "CALL_ONCE")
        assert once
        starts = {each.builtinOptions.initSubgraphIndex for _, each in once}
        for index in starts:
            model.subgraphs[index].operators = model.subgraphs[index].operators[:-1]

    assert rules(edited(built.data, change), built.manifest) == {"uninitialised-variable"}


def test_a_missing_signature_is_found(built):
    def change(model):
        model.signatureDefs = [each for each in model.signatureDefs if each.signatureKey != b"set_state"]

    findings = lint(edited(built.data, change), built.manifest)

    assert [each.rule for each in findings] == ["signature"]
    assert "'set_state' is missing" in findings[0].message


def test_an_input_without_dimensions_is_found(built):
    def change(model):
        definition = next(each for each in model.signatureDefs if each.signatureKey == b"train")
        entry = next(each for each in definition.inputs if each.name == b"learning_rate")
        tensor = model.subgraphs[definition.subgraphIndex].tensors[entry.tensorIndex]
        tensor.shape = []

    assert rules(edited(built.data, change), built.manifest) == {"scalar-input", "signature"}


def test_a_tensor_that_the_manifest_describes_otherwise_is_found(built):
    train = built.manifest.signatures["train"]
    first = train.inputs[0]
    other = dataclasses.replace(
        train, inputs=(TensorSpec(first.name, first.tensor, (9, 9), "int32"), *train.inputs[1:])
    )
    manifest = dataclasses.replace(built.manifest, signatures={**built.manifest.signatures, "train": other})

    findings = lint(built.data, manifest)

    assert [each.rule for each in findings] == ["signature"]
    assert "(9, 9)" in findings[0].message
