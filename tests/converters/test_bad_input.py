"""Models and options that cannot be converted: one line that says what to do, its exit code, and no file."""

from __future__ import annotations

import errno

import keras
import numpy as np
import pytest
from keras import layers

import edgefl
import keras_models
from edgefl.errors import InvalidSettingError, ModelError, StorageError, UnsupportedModelError
from edgefl_converters import converting
from edgefl_converters.cli.arguments import parse_shapes


def compiled(*stack, shape=(4,), **options):
    model = keras.Sequential([keras.Input(shape, **options), *stack])
    model.compile("sgd", "mse")
    return model


def two_inputs_one_used():
    first, second = keras.Input((3,), name="used"), keras.Input((3,), name="left_over")
    model = keras.Model([first, second], layers.Dense(1)(first))
    model.compile("sgd", "mse")
    return model


def with_bad_weight():
    model = compiled(layers.Dense(2))
    model.layers[0].kernel.assign(np.full((4, 2), np.nan))
    return model


def not_built():
    model = keras.Sequential([layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def empty():
    model = keras.Sequential()
    model.compile("sgd", "mse")
    return model


def half(policy):
    return compiled(layers.Dense(2, dtype=policy))


@pytest.mark.parametrize(
    ("make", "error", "code", "words"),
    [
        (
            lambda: compiled(layers.Conv1D(2, 3), shape=(None, 6)),
            UnsupportedModelError,
            11,
            r"=\(100, 6\)`",
        ),
        (
            lambda: compiled(layers.Bidirectional(layers.LSTM(3)), layers.Dense(1), shape=(None, 3)),
            UnsupportedModelError,
            11,
            r"`input_shape=\(100, 3\)`",
        ),
        (lambda: compiled(layers.Normalization(), layers.Dense(1)), ModelError, 10, r"adapt\(data\)"),
        (lambda: compiled(layers.Discretization(num_bins=3), layers.Dense(1)), ModelError, 10, r"adapt\(data\)"),
        (with_bad_weight, ModelError, 10, "not finite"),
        (lambda: half("float64"), UnsupportedModelError, 11, "float64.*float32"),
        (lambda: half("float16"), UnsupportedModelError, 11, "float16.*float32"),
        (lambda: compiled(layers.Dense(2), sparse=True), UnsupportedModelError, 11, "sparse.*dense"),
        (not_built, ModelError, 10, "`input_shape`"),
        (empty, ModelError, 10, "empty"),
        (two_inputs_one_used, ModelError, 10, "'left_over' is not used"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_the_way_out(tmp_path, make, error, code, words):
    with pytest.raises(error, match=words) as caught:
        edgefl.convert(make(), tmp_path / "m.tflite")
    assert caught.value.exit_code == code
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_text_is_turned_into_numbers_before_the_model(tmp_path):
    text = keras.Input((), dtype="string")
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    model = keras.Model(text, layers.Flatten()(layers.Embedding(3, 2)(lookup(text))))
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"takes strings.*before the model"):
        edgefl.convert(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_folder_that_takes_no_file_is_found_before_the_work_starts(tmp_path, monkeypatch, code):
    def refuse(**options):
        raise OSError(code, "no")

    monkeypatch.setattr(converting.tempfile, "TemporaryFile", refuse)
    with pytest.raises(StorageError, match=r"Could not write") as caught:
        edgefl.convert("never looked at", tmp_path / "m.tflite")
    assert caught.value.exit_code == 52
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_the_report_belongs_is_found_before_the_work_starts(tmp_path):
    (tmp_path / "m.tflite.report.json").mkdir()
    with pytest.raises(InvalidSettingError, match="report is to be written"):
        edgefl.convert("never looked at", tmp_path / "m.tflite")


def test_an_unknown_time_length_is_given_and_the_weights_stay(tmp_path):
    model = compiled(layers.Conv1D(2, 3, name="conv"), layers.GlobalMaxPooling1D(), layers.Dense(1), shape=(None, 6))
    result = edgefl.convert(model, tmp_path / "m.tflite", input_shape=(10, 6), batch_size=4, verify=False)
    assert result.manifest.signatures["infer"].inputs[0].shape == (4, 10, 6)
    file = edgefl_file(result.path)
    kernel = next(each for each in file.manifest.parameters if each.name == "conv/kernel")
    np.testing.assert_array_equal(file.initial_value(kernel), np.asarray(model.layers[0].kernel))


class NoConfig(layers.Dense):
    """A layer that cannot be made again, as some of KerasHub's."""

    def get_config(self):
        raise AttributeError("no attribute 'factor'")


def tied(hidden):
    """A language model of unknown length, with a mask: a model within it has its table of words too."""
    keras.utils.set_random_seed(1)
    words, mask = (keras.Input((None,), dtype="int32", name=name) for name in ("words", "mask"))
    table = keras.layers.ReversibleEmbedding(9, 4, name="table")
    looked_up = table(words) * keras.ops.cast(mask[..., None], "float32")
    backbone = keras.Model({"words": words, "mask": mask}, hidden(looked_up), name="backbone")
    given = {name: keras.Input((None,), dtype="int32", name=name) for name in ("words", "mask")}
    model = keras.Model(given, table(backbone(given), reverse=True), name="tied")
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


LENGTHS = {"words": (5,), "mask": (5,)}


def test_a_length_is_given_to_inputs_by_key_and_what_is_shared_stays_so(tmp_path):
    model = tied(layers.Dense(4, "tanh", name="hidden"))
    adapters = edgefl.FineTuning(lora_rank=2, lora_targets="hidden", trainable="table")
    result = edgefl.convert(model, tmp_path / "m.tflite", input_shape=LENGTHS, batch_size=2, fine_tuning=adapters)
    names = [each.rpartition("/")[0].rpartition("/")[2] for each in result.manifest.layout.names]
    assert sorted(names) == ["hidden", "hidden", "table"]
    assert result.report["verification"]["passed"]
    assert not model.get_layer("backbone").get_layer("hidden").lora_enabled


def test_layers_that_cannot_be_made_again_get_a_length_but_no_adapters_of_ours(tmp_path):
    model = tied(NoConfig(4, "tanh", name="hidden"))
    result = edgefl.convert(model, tmp_path / "m.tflite", input_shape=LENGTHS, batch_size=2)
    assert result.manifest.signatures["infer"].inputs[0].shape == (2, 5)
    adapters = edgefl.FineTuning(lora_rank=2, lora_targets="hidden")
    with pytest.raises(UnsupportedModelError, match=r"Keras cannot copy the model.*no attribute 'factor'.*module:func"):
        edgefl.convert(model, tmp_path / "n.tflite", input_shape=LENGTHS, batch_size=2, fine_tuning=adapters)
    assert not model.get_layer("backbone").get_layer("hidden").lora_enabled


def edgefl_file(path):
    from edgefl.model_file import ModelFile

    return ModelFile.read(path)


def test_a_model_that_was_never_called_is_built_with_the_given_shape(tmp_path):
    result = edgefl.convert(not_built(), tmp_path / "m.tflite", input_shape=(3,), batch_size=4, verify=False)
    assert result.manifest.signatures["infer"].inputs[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("shape", "words"),
    [((10, 5), "does not fit"), ((10,), "does not fit"), ({"nobody": (10, 6)}, "no input 'nobody'"), ((0, 6), "got")],
)
def test_a_shape_that_contradicts_the_model_is_refused(tmp_path, shape, words):
    model = compiled(layers.Conv1D(2, 3), layers.GlobalMaxPooling1D(), shape=(None, 6))
    with pytest.raises(InvalidSettingError, match=words):
        edgefl.convert(model, tmp_path / "m.tflite", input_shape=shape)
    assert list(tmp_path.iterdir()) == []


def test_shapes_are_read_from_the_command_line():
    assert parse_shapes(["100,6"], "input") == (100, 6)
    assert parse_shapes(["left=100,6", "right=3"], "input") == {"left": (100, 6), "right": (3,)}
    for wrong in (["x"], ["3,"], ["3", "4"], ["a=b"]):
        with pytest.raises(InvalidSettingError, match="name=100,6"):
            parse_shapes(wrong, "input")


def test_a_batch_of_no_rows_is_refused(tmp_path):
    with pytest.raises(InvalidSettingError, match="at least 1, got 0"):
        edgefl.convert(keras_models.mlp(), tmp_path / "m.tflite", batch_size=0)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_class_in_a_file_is_answered_with_the_nearest(tmp_path):
    class Conv2DX(layers.Dense):
        pass

    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((3,)), Conv2DX(2)]).save(path)
    with pytest.raises(ModelError, match=r"uses Conv2DX.*Did you mean 'Conv2D'"):
        edgefl.convert(path, tmp_path / "m.tflite")


@pytest.mark.parametrize(
    ("line", "near"),
    [("layers.Dense(1, activation='rellu')", "'relu'"), ("layers.Dens(1)", "'Dense'")],
)
def test_an_unknown_name_in_the_users_function_is_answered_with_the_nearest(tmp_path, monkeypatch, line, near):
    monkeypatch.chdir(tmp_path)
    name = f"bad_names_{len(line)}"
    (tmp_path / f"{name}.py").write_text(
        f"import keras\nfrom keras import layers\ndef model():\n    return keras.Sequential([{line}])\n"
    )
    with pytest.raises(ModelError, match=f"Did you mean {near}"):
        edgefl.convert(f"{name}:model", tmp_path / "m.tflite")


def lookup_without_data():
    number = keras.Input((4,), dtype="int32")
    found = layers.Embedding(9, 2)(layers.IntegerLookup(max_tokens=5, name="lookup")(number))
    model = keras.Model(number, layers.Dense(1)(layers.Flatten()(found)))
    model.compile("sgd", "mse")
    return model


def test_a_lookup_that_has_not_seen_data_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"'lookup' \(IntegerLookup\) has not seen any data.*adapt\(data\)"):
        edgefl.convert(lookup_without_data(), tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_does_not_hide_that_a_layer_has_not_seen_data(tmp_path):
    path = tmp_path / "m.keras"
    compiled(layers.Normalization(), layers.Dense(1)).save(path)
    with pytest.raises(ModelError, match=r"adapt\(data\)"):
        edgefl.convert(path, tmp_path / "m.tflite")
    assert [each.name for each in tmp_path.iterdir()] == ["m.keras"]


def test_a_layer_that_has_seen_its_data_is_converted(tmp_path):
    layer = layers.Normalization()
    layer.adapt(np.array([[1, 2, 3, 4], [3, 4, 5, 8]], np.float32))
    edgefl.convert(compiled(layer, layers.Dense(1)), tmp_path / "m.tflite", batch_size=4, verify=False)
    assert (tmp_path / "m.tflite").exists()


def test_ragged_input_is_refused(tmp_path):
    rows = keras.Input((4,), ragged=True)
    model = keras.Model(rows, layers.Dense(1)(rows))
    model.compile("sgd", "mse")
    with pytest.raises(UnsupportedModelError, match=r"is ragged.*pad"):
        edgefl.convert(model, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda: compiled(layers.LSTM(3, stateful=True, name="blamed"), shape=(5, 6), batch_size=4),
        lambda: compiled(layers.Normalization(name="blamed")),
        lambda: compiled(layers.Dense(3, dtype="float16", name="blamed")),
    ],
)
def test_the_layer_that_is_to_blame_is_an_attribute_of_the_error(make, tmp_path):
    with pytest.raises(ModelError) as caught:
        edgefl.convert(make(), tmp_path / "m.tflite", batch_size=4)
    assert caught.value.layer == "blamed"
