"""Makes keras_2_files.zip, with Keras 2: ``pip install tensorflow==2.21.0 tf-keras==2.21.0`` in another environment.

    python make_keras_2_files.py keras_2_files.zip [NAME ...]

It holds models as people build them, each as ``NAME.h5``, ``NAME.keras`` or a SavedModel in the folder ``NAME``, and
``NAME.npz``: inputs, what Keras 2 predicts of them (``y0``, …), and how many of the parameters it trains.
"""

import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import applications, layers
from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU
from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

K = keras.backend


def images(size):
    return np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("float32")


def numbers(*shape):
    return np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")


def words(length, vocabulary):
    found = np.random.default_rng(2).integers(1, vocabulary, (2, length)).astype("int32")
    found[1, -length // 2 :] = 0
    return found


def mobilenet_as_in_the_tutorial():
    """As www.tensorflow.org/tutorials/images/transfer_learning: augmentation, arithmetic, a base without training."""
    base = applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    base.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.2)])(inputs)
    x = applications.mobilenet_v2.preprocess_input(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy(from_logits=True), ["accuracy"])
    return model, [images(32)]


def mobilenet_partly_thawed():
    """The second half of the tutorial: layers from some on are trained, and the base is not told training=False."""
    base = applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    base.trainable = True
    for layer in base.layers[:-30]:
        layer.trainable = False
    inputs = keras.Input((32, 32, 3))
    x = layers.GlobalAveragePooling2D()(base(layers.Rescaling(1 / 127.5, offset=-1)(inputs)))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.RMSprop(1e-5), "sparse_categorical_crossentropy", ["accuracy"])
    return model, [images(32)]


def fine_tuned():
    """A thawed base with statistics and dropout, called as at inference, and a layer called so."""
    inner = keras.Input((6,))
    body = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(5, activation="relu")(inner)))
    inputs = keras.Input((6,))
    x = layers.BatchNormalization()(keras.Model(inner, body, name="base")(inputs, training=False), training=False)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile("sgd", "mse")
    return model, [numbers(6)]


def efficientnet_in_a_sequential():
    base = applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    base.trainable = False
    model = keras.Sequential([base, layers.Dense(4, activation="softmax")])
    model.compile("adam", "categorical_crossentropy")
    return model, [images(32)]


def as_teachable_machine():
    """teachablemachine.withgoogle.com: a Sequential of a Sequential (of a base and a pooling) and of a Sequential."""
    base = applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None)
    features = keras.Sequential([base, layers.GlobalAveragePooling2D()])
    head = keras.Sequential(
        [layers.Dense(10, activation="relu"), layers.Dense(3, activation="softmax", use_bias=False)]
    )
    model = keras.Sequential([features, head])
    model.compile("adam", "categorical_crossentropy", ["accuracy"])
    return model, [images(32) / 127.5 - 1]


def densenet_preprocessing():
    """Two kinds of ``preprocess_input``: one divides by a list of numbers, the other turns colours around."""
    inputs = keras.Input((16, 16, 3), name="photo")
    features = []
    for preprocess in (applications.densenet.preprocess_input, applications.vgg16.preprocess_input):
        inner = keras.Input((16, 16, 3))
        body = keras.Model(inner, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, strides=2)(inner)))
        features.append(body(preprocess(inputs)))
    return keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(features))), [images(16)]


def words_and_gates():
    """Masks through embeddings, every recurrent layer, wrappers, and a state that is handed on."""
    ids = keras.Input((8,), dtype="int32")
    x = layers.Embedding(20, 6, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(5, activation="tanh"))(x)
    encoded, state = layers.GRU(3, return_sequences=True, return_state=True)(x)
    plain = layers.GRU(3, reset_after=False, recurrent_activation="hard_sigmoid")(x)
    handed = layers.SimpleRNN(3)(encoded, initial_state=state)
    stacked = layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)])(encoded)
    y = layers.Dense(2, activation="hard_sigmoid")(layers.concatenate([plain, handed, stacked]))
    model = keras.Model(ids, y)
    model.compile("rmsprop", "mse")
    return model, [words(8, 20)]


def shared_twice():
    """A siamese network: one inner model called twice, which holds a layer that is called twice; two outputs."""
    inner = keras.Input((6,))
    dense = layers.Dense(6, activation="relu", name="again")
    body = keras.Model(inner, layers.BatchNormalization()(dense(dense(inner))), name="body")
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    one, other = body(left), body(right)
    distance = K.sqrt(K.maximum(K.sum(K.square(one - other), axis=1, keepdims=True), K.epsilon()))
    near = layers.Dense(1, activation="sigmoid", name="near")(tf.reshape(tf.abs(one[:, 1:-1] - other[:, 2:]), [-1, 4]))
    model = keras.Model([left, right], [near, distance])
    return model, [numbers(6), numbers(6) * 2]


def named_ports():
    """Inputs and outputs in dictionaries, losses and metrics by name."""
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    joined = layers.Concatenate(name="joined")([a, b])
    outputs = {"size": layers.Dense(1, name="size")(joined), "kind": layers.Dense(3, name="kind")(joined)}
    model = keras.Model({"a": a, "b": b}, outputs)
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9), momentum=0.9),
        {"size": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        metrics={"kind": ["accuracy"]},
        loss_weights={"size": 1.0, "kind": 0.5},
    )
    return model, [numbers(4), numbers(3)]


def convolutions():
    """Each kind of convolution and normalisation; a frozen one in a trained one in a frozen one."""
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.SeparableConv2D(6, 3, activation="swish")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2)(x)
    x = layers.LayerNormalization(axis=[1, 2, 3])(x)
    x = layers.Conv2DTranspose(4, 3, strides=2)(x)
    x = layers.GroupNormalization(2)(layers.PReLU(shared_axes=[1, 2])(x))
    x = layers.LeakyReLU(alpha=0.1)(layers.ReLU(6.0)(x))
    x = layers.UpSampling2D(interpolation="bilinear")(layers.MaxPooling2D()(x))
    frozen = layers.Conv2D(4, 3, groups=2, trainable=False)
    middle = keras.Sequential([frozen, layers.BatchNormalization(), layers.Conv2D(3, 1)], name="middle")
    x = keras.Sequential([middle, layers.BatchNormalization(), layers.Conv2D(2, 1)], name="outer")(x)
    sequence = layers.Reshape((-1, 2))(x)
    attended = layers.MultiHeadAttention(2, 3)(sequence, sequence)
    attended = layers.Attention(use_scale=True)([attended, sequence])
    sequence = layers.SeparableConv1D(3, 3)(layers.Add()([attended, sequence]))
    sequence = layers.DepthwiseConv1D(3)(layers.Conv1D(3, 5, padding="causal", dilation_rate=2)(sequence))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.BatchNormalization()])
    sequence = layers.TimeDistributed(inner)(sequence)
    return keras.Model(inputs, layers.GlobalMaxPooling1D()(sequence)), [numbers(12, 12, 3)]


def in_half_precision():
    policy = keras.mixed_precision.Policy("mixed_float16")
    keras.mixed_precision.set_global_policy(policy)
    try:
        inner = keras.Input((8, 8, 3))
        body = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(inner))
        inputs = keras.Input((8, 8, 3))
        x = layers.GlobalAveragePooling2D()(keras.Model(inner, body)(inputs / 255.0))
        model = keras.Model(inputs, layers.Dense(3, activation="softmax", dtype="float32")(x))
        model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", ["accuracy"])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    return model, [images(8)]


def tables_and_slashes():
    """Statistics of the data within the model, and names as those of MobileNetV3: with slashes, one in another."""
    inner = keras.Input((6,))
    x = layers.BatchNormalization(name="Conv/BatchNorm")(layers.Dense(6, name="Conv")(inner))
    x = layers.BatchNormalization(name="expanded/Conv")(layers.Dense(6, name="expanded/Conv/Dense")(x))
    base = keras.Model(inner, layers.Normalization(name="inside")(x), name="base")
    inputs = keras.Input((4, 6))
    statistics = layers.Normalization(axis=-1)
    statistics.adapt(np.random.default_rng(5).normal(3, 2, (9, 4, 6)).astype("float32"))
    x = layers.Flatten()(layers.SpatialDropout1D(0.2)(statistics(inputs)))
    model = keras.Model(inputs, layers.Dense(1)(base(layers.Dense(6)(x))))
    model.compile("adam", "mse")
    return model, [numbers(4, 6)]


OPERATIONS = {
    "reversed_subtraction": lambda x: 1.0 - x,
    "reversed_power": lambda x: 2.0**x,
    "floor_division": lambda x: x // 0.3,
    "remainder": lambda x: x % 0.7,
    "negative": lambda x: -x,
    "with_a_list": lambda x: x * tf.constant([1.0, 2, 3, 4, 5, 6]) + [1.0, 2, 3, 4, 5, 6],
    "comparisons": lambda x: tf.cast((x > 0) & (x <= 1), tf.float32) + tf.cast(tf.equal(x, x), tf.float32),
    "where": lambda x: tf.where(x > 0, x, 0.1),
    "elementwise": lambda x: tf.sqrt(tf.abs(x)) + tf.exp(x) * tf.math.log1p(tf.square(x)) - tf.math.rsqrt(x * x + 1.0),
    "trigonometry": lambda x: tf.sin(x) + tf.math.cos(x) * tf.atan(x) + tf.tanh(x) - tf.math.erf(x),
    "rounding": lambda x: tf.round(x) + tf.floor(x) * tf.math.ceil(x) + tf.sign(x),
    "clipping": lambda x: tf.clip_by_value(x, -0.5, 0.5) + tf.maximum(x, 0.2) - tf.minimum(x, -0.1),
    "index": lambda x: x[:, 1],
    "slices": lambda x: x[:, None, 1:3, ::2],
    "ellipsis": lambda x: x[..., ::-1],
    "last": lambda x: x[:, -1, :3],
    "slice": lambda x: tf.slice(x, [0, 0, 1], [-1, 2, 2]),
    "strided": lambda x: tf.strided_slice(x, [0, 1], [2, 4], [1, 2]),
    "reshape": lambda x: tf.reshape(x, [-1, 24]),
    "reshape_by_shape": lambda x: tf.reshape(x, [tf.shape(x)[0], 2, 12]),
    "reshape_by_product": lambda x: tf.reshape(x, tf.stack([tf.shape(x)[0] * tf.shape(x)[1], x.shape[2]]))[:, :2],
    "reshape_by_concat": lambda x: tf.reshape(x, tf.concat([tf.shape(x)[:2], [2, 3]], 0)),
    "batch_flatten": K.batch_flatten,
    "keras_dot": lambda x: K.dot(x, K.constant(np.arange(18).reshape(6, 3) / 9)),
    "keras_permute": lambda x: K.permute_dimensions(x, (0, 2, 1)),
    "keras_switch": lambda x: K.switch(x > 0, x, x * 2),
    "keras_normalize": lambda x: K.l2_normalize(x, axis=-1),
    "keras_statistics": lambda x: K.mean(x, axis=1) + K.std(x, axis=1) + K.var(x, axis=1) + K.prod(x, axis=1),
    "keras_repeat": lambda x: K.repeat_elements(x, 2, axis=1),
    "keras_relu": lambda x: K.relu(x, alpha=0.1, max_value=1.0) + K.hard_sigmoid(x) + K.elu(x),
    "keras_batch_dot": lambda x: K.batch_dot(x, x, axes=2),
    "keras_concatenate": lambda x: K.concatenate([x, x * 2], axis=1),
    "transpose": lambda x: tf.transpose(x, [0, 2, 1]),
    "concat": lambda x: tf.concat([x, x + 1, tf.zeros_like(x)], -1),
    "stack": lambda x: tf.stack([x, x * 2], axis=1),
    "split": lambda x: tf.add_n(tf.split(x, 2, axis=-1)),
    "split_unequal": lambda x: tf.split(x, [1, 2, 3], axis=-1)[2],
    "unstack": lambda x: tf.unstack(x, axis=1)[2],
    "squeeze": lambda x: tf.squeeze(tf.expand_dims(x, 2), [2]),
    "tile": lambda x: tf.tile(x, [1, 2, 1]),
    "repeat": lambda x: tf.repeat(x, 2, axis=1),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2], [0, 1]]) + tf.pad(x, [[0, 0], [2, 1], [1, 0]], "REFLECT"),
    "reverse": lambda x: tf.reverse(x, [1]),
    "roll": lambda x: tf.roll(x, 1, axis=1),
    "gather": lambda x: tf.gather(x, [0, 2], axis=1),
    "gather_in_batch": lambda x: tf.gather(x, tf.argsort(x[:, :, 0]), axis=1, batch_dims=1),
    "one_hot": lambda x: tf.one_hot(tf.argmax(x, axis=-1), 6),
    "top_k": lambda x: tf.math.top_k(x, 2)[0],
    "cumsum": lambda x: tf.cumsum(x, axis=1, exclusive=True),
    "reductions": lambda x: tf.reduce_sum(x, [1, 2]) + tf.reduce_max(x, [1, 2]) - tf.reduce_min(x, [1, 2]),
    "keep_dimensions": lambda x: x - tf.reduce_mean(x, axis=-1, keepdims=True),
    "log_sum_exp": lambda x: tf.reduce_logsumexp(x, axis=1) + tf.math.reduce_std(x, axis=1),
    "norm": lambda x: tf.norm(x, axis=-1) + tf.linalg.norm(x, ord=1, axis=-1),
    "matmul": lambda x: tf.matmul(x, x, transpose_b=True),
    "at": lambda x: x @ tf.transpose(x, [0, 2, 1]),
    "tensordot": lambda x: tf.tensordot(x, tf.constant(np.arange(12).reshape(6, 2) / 6, tf.float32), 1),
    "activations": lambda x: tf.nn.relu(x) + tf.nn.relu6(x) + tf.nn.elu(x) + tf.nn.selu(x) + tf.nn.leaky_relu(x),
    "smooth_activations": lambda x: tf.nn.gelu(x) + tf.nn.swish(x) + tf.nn.softplus(x) + tf.nn.sigmoid(x),
    "softmax": lambda x: tf.nn.softmax(x) + tf.nn.log_softmax(x, axis=1) + tf.nn.softmax(x, axis=1),
    "keras_activations": lambda x: keras.activations.gelu(x) + keras.activations.swish(x) + keras.activations.elu(x),
    "normalize": lambda x: tf.nn.l2_normalize(x, axis=1) + tf.math.l2_normalize(x, -1),
    "moments": lambda x: tf.nn.moments(x, [1])[1],
    "bias_add": lambda x: tf.nn.bias_add(x, [1.0, 2, 3, 4, 5, 6]),
    "loss_as_a_layer": lambda x: keras.losses.mean_squared_error(x, x * 2),
    "rows_of_the_batch": lambda x: tf.tile(tf.constant([[[1.0] * 6]]), [tf.shape(x)[0], 4, 1]) + x,
    "broadcast": lambda x: tf.broadcast_to(tf.constant([1.0] * 6), tf.shape(x)) * x,
    "zeros_of_the_batch": lambda x: tf.concat([tf.zeros([tf.shape(x)[0], 1, 6]), x], 1),
    "picture_response": lambda x: tf.nn.local_response_normalization(x[..., None] * tf.ones([4])),
    "picture_depth": lambda x: tf.nn.space_to_depth(x[..., None], 2),
    "picture_back": lambda x: tf.nn.depth_to_space(tf.reshape(x, [-1, 2, 3, 4]), 2),
    "picture_size": lambda x: tf.image.resize(x[..., None], (8, 9)),
    "picture_grey": lambda x: tf.image.rgb_to_grayscale(x[..., :3]),
    "picture_standard": lambda x: tf.image.per_image_standardization(x[..., None]),
    "pooling": lambda x: tf.nn.max_pool2d(x[..., None], 2, 2, "VALID") + tf.nn.avg_pool2d(x[..., None], 2, 2, "VALID"),
    "xlogy": lambda x: tf.math.xlogy(tf.abs(x), tf.abs(x) + 1.0) + tf.math.squared_difference(x, 1.0),
    "stopped": lambda x: tf.stop_gradient(x) + tf.identity(x),
    "size": lambda x: x / tf.cast(tf.shape(x)[1], tf.float32) + x.shape[2],
    "absolute_by_operator": lambda x: abs(x) + x**2,
    "not_equal": lambda x: tf.cast(tf.not_equal(x, 0.5), "float32") + tf.cast(tf.logical_not(x < 0), "float32"),
}
"""Each a function of rows of shape [4, 6]: what TensorFlow users write between layers."""


def operations():
    inputs = keras.Input((4, 6), name="x")
    hidden = layers.Dense(6, name="first")(inputs)
    outputs = {}
    for name, function in OPERATIONS.items():
        result = function(hidden)
        outputs[name] = layers.Activation("linear", name=name, dtype="float32")(result)
    return keras.Model(inputs, outputs), [numbers(4, 6)]


def for_a_gpu(lstm=CuDNNLSTM, gru=CuDNNGRU):
    """Layers that run on a GPU only; with the plain ones in their place it is what computes the answers."""
    inputs = keras.Input((5, 3))
    x = layers.Bidirectional(lstm(4, return_sequences=True))(inputs)
    x, state = gru(3, return_sequences=True, return_state=True)(lstm(4, return_sequences=True)(x))
    y = layers.Dense(2)(gru(3, go_backwards=True)(layers.LSTM(4, return_sequences=True)(x), initial_state=state))
    model = keras.Model(inputs, y)
    model.compile("rmsprop", "mse")
    return model, [numbers(5, 3)]


MODELS = {
    "tables_and_slashes": (tables_and_slashes, ("h5", "keras", "folder")),
    "for_a_gpu": (for_a_gpu, ("h5", "keras")),
    "mobilenet_as_in_the_tutorial": (mobilenet_as_in_the_tutorial, ("h5", "folder")),
    "mobilenet_partly_thawed": (mobilenet_partly_thawed, ("h5", "keras")),
    "fine_tuned": (fine_tuned, ("h5", "keras", "folder")),
    "efficientnet_in_a_sequential": (efficientnet_in_a_sequential, ("h5",)),
    "as_teachable_machine": (as_teachable_machine, ("h5", "keras")),
    "densenet_preprocessing": (densenet_preprocessing, ("h5", "folder")),
    "words_and_gates": (words_and_gates, ("h5", "keras", "folder")),
    "shared_twice": (shared_twice, ("h5", "keras", "folder")),
    "named_ports": (named_ports, ("h5", "keras", "folder")),
    "convolutions": (convolutions, ("h5", "keras", "folder")),
    "in_half_precision": (in_half_precision, ("h5", "keras", "folder")),
    "operations": (operations, ("h5", "folder")),  # tf_keras itself cannot write `...` into .keras
}


def give_values(model):
    """Weights that differ from each other and make a small archive: they repeat themselves."""
    pattern = np.random.default_rng(3).normal(size=499).astype("float32")
    for index, variable in enumerate({id(each): each for each in model.weights}.values()):
        fan_in = max(1, int(np.prod(variable.shape[:-1])))
        values = np.resize(np.roll(pattern, index), variable.shape) / np.sqrt(fan_in)
        variable.assign(1 + np.abs(values) / 2 if "variance" in variable.name or "gamma" in variable.name else values)
    for layer in model._flatten_layers():
        layer.finalize_state()  # as when a file is loaded


def save(name, build, formats, folder):
    keras.utils.set_random_seed(1)
    K.clear_session()
    model, inputs = build()
    give_values(model)
    named = dict(zip(model.input, inputs)) if isinstance(model.input, dict) else None
    able = model
    if build is for_a_gpu:
        able, _ = build(layers.LSTM, layers.GRU)
        model.save_weights(folder / "weights.h5")
        able.load_weights(folder / "weights.h5")
        (folder / "weights.h5").unlink()
    predicted = able.predict(named or (inputs if len(inputs) > 1 else inputs[0]), verbose=0)
    answers = {f"y{index}": each for index, each in enumerate(tf.nest.flatten(predicted))}
    given = {f"x{index}": each for index, each in enumerate(inputs)}
    trained = sum(int(np.prod(each.shape)) for each in able.trainable_weights)
    np.savez_compressed(folder / f"{name}.npz", trained=trained, **given, **answers)
    for form in formats:
        if form == "folder":  # without traces and with a signature of one op: the graphs are not read, and large
            signature = tf.function(lambda x: {"same": x}).get_concrete_function(tf.TensorSpec([None, 1], name="x"))
            model.save(folder / name, save_traces=False, signatures=signature)
        else:
            model.save(folder / f"{name}.{form}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for name, (build, formats) in MODELS.items():
            if name in (sys.argv[2:] or MODELS):
                save(name, build, formats, Path(scratch))
        with zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_LZMA) as archive:
            for path in sorted(Path(scratch).rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(scratch))
