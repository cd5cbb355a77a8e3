"""Trains the digit reader, a small second opinion on a number, and writes it as ONNX.

  python3 train.py ../../reading/models/digit_reader.onnx

A convolutional network with CTC (Graves et al. 2006) over ten digits and the blank. Input: 1 x 1 x 32 x 192, a grey strip
less its mean, over its deviation. Output: 1 x 48 x 11 probabilities, the blank first. The seed is fixed; what it prints last
is the share of strips of another seed that are read without an error.
"""
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_DETERMINISTIC_OPS"] = "1"

import numpy as np
import onnx
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from tensorflow import keras

from strips import COLUMNS, MOST_DIGITS, ROWS, strips

SEED, HELD_OUT = 51, 52
TRAINED, TESTED = 50_000, 2_000
EPOCHS, BATCH, RATE = 8, 96, 2.5e-3
CLASSES = 11
# Channels, kernel, pooling behind it. Rows shrink from 32 to 1, columns from 192 to 48 steps.
LAYERS = [(16, (3, 3), (2, 2)), (32, (3, 3), (2, 2)), (64, (3, 3), None), (64, (3, 3), (2, 1)), (96, (3, 3), (2, 1)), (128, (2, 3), None)]


def network():
    """The network; logits by step."""
    inputs = x = keras.Input((ROWS, COLUMNS, 1))
    for index, (channels, kernel, pool) in enumerate(LAYERS):
        last = index == len(LAYERS) - 1
        if last:
            x = keras.layers.ZeroPadding2D((0, 1))(x)
        x = keras.layers.Conv2D(channels, kernel, padding="valid" if last else "same", use_bias=False, name=f"conv{index}")(x)
        x = keras.layers.BatchNormalization(momentum=0.95, name=f"norm{index}")(x)
        x = keras.layers.ReLU()(x)
        if pool:
            x = keras.layers.MaxPooling2D(pool)(x)
    x = keras.layers.SpatialDropout2D(0.1)(x)
    x = keras.layers.Conv2D(CLASSES, 1, name="head")(x)
    return keras.Model(inputs, keras.layers.Reshape((COLUMNS // 4, CLASSES))(x))


def normal(pixels):
    """A strip less its mean, over its deviation."""
    pixels = tf.cast(pixels, tf.float32)
    mean, variance = tf.nn.moments(pixels, [1, 2], keepdims=True)
    return ((pixels - mean) / tf.maximum(tf.sqrt(variance), 1.0))[..., None]


def varied(pixels, labels):
    """Each epoch sees a strip inverted or moved by some pixels."""
    x = normal(pixels)
    seed = tf.random.uniform((3,), -4, 5, tf.int32)
    x = tf.roll(x, [seed[0] // 2, seed[1]], [1, 2])
    return x * tf.where(tf.random.uniform((tf.shape(x)[0], 1, 1, 1)) < 0.2, -1.0, 1.0), labels


def loss(labels, logits):
    count = tf.reduce_sum(tf.cast(labels >= 0, tf.int32), 1)
    steps = tf.fill(tf.shape(count), COLUMNS // 4)
    found = tf.nn.ctc_loss(tf.cast(tf.maximum(labels, 0) + 1, tf.int32), logits, count, steps, logits_time_major=False, blank_index=0)
    return tf.reduce_mean(found)


def read(logits):
    """Greedy CTC: the likeliest class of every step, repeats and blanks dropped."""
    texts = []
    for steps in np.argmax(logits, -1):
        kept = [step for step, before in zip(steps, np.concatenate([[0], steps[:-1]])) if step and step != before]
        texts.append("".join(str(step - 1) for step in kept))
    return texts


def exact(model, pixels, labels):
    texts = read(model.predict(normal(pixels), batch_size=256, verbose=0))
    return np.mean([text == "".join(str(d) for d in row if d >= 0) for text, row in zip(texts, labels)])


def folded(model, index):
    """A convolution's weights and bias with its normalisation worked in."""
    kernel = model.get_layer(f"conv{index}").get_weights()[0]
    gamma, beta, mean, variance = model.get_layer(f"norm{index}").get_weights()
    scale = gamma / np.sqrt(variance + model.get_layer(f"norm{index}").epsilon)
    return kernel * scale, beta - mean * scale


def save(model, path):
    nodes, weights, at = [], [], "strip"

    def convolution(name, kernel, bias, pads):
        nonlocal at
        weights.append(numpy_helper.from_array(kernel.transpose(3, 2, 0, 1).astype(np.float32), f"{name}.weight"))
        weights.append(numpy_helper.from_array(bias.astype(np.float32), f"{name}.bias"))
        nodes.append(helper.make_node("Conv", [at, f"{name}.weight", f"{name}.bias"], [name], pads=pads, strides=[1, 1], dilations=[1, 1], group=1))
        at = name

    for index, (_, kernel, pool) in enumerate(LAYERS):
        last = index == len(LAYERS) - 1
        convolution(f"conv{index}", *folded(model, index), [0, 1, 0, 1] if last else [1, 1, 1, 1])
        nodes.append(helper.make_node("Relu", [at], [f"relu{index}"]))
        at = f"relu{index}"
        if pool:
            nodes.append(helper.make_node("MaxPool", [at], [f"pool{index}"], kernel_shape=pool, strides=pool))
            at = f"pool{index}"
    convolution("head", *model.get_layer("head").get_weights(), [0, 0, 0, 0])
    weights.append(numpy_helper.from_array(np.array([1, CLASSES, -1], np.int64), "shape"))
    nodes += [
        helper.make_node("Reshape", [at, "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["steps"], perm=[0, 2, 1]),
        helper.make_node("Softmax", ["steps"], ["digits"], axis=2),
    ]
    graph = helper.make_graph(
        nodes, "digit_reader", [helper.make_tensor_value_info("strip", TensorProto.FLOAT, [1, 1, ROWS, COLUMNS])],
        [helper.make_tensor_value_info("digits", TensorProto.FLOAT, [1, COLUMNS // 4, CLASSES])], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], producer_name="milestream")
    made.ir_version = 8
    onnx.checker.check_model(made)
    onnx.save(made, path)


def main():
    keras.utils.set_random_seed(SEED)
    start = time.time()
    pixels, labels = strips(SEED, TRAINED)
    tested = strips(HELD_OUT, TESTED)
    print(f"{len(pixels)} strips drawn in {time.time() - start:.0f} s", flush=True)
    model = network()
    steps = TRAINED // BATCH
    rate = keras.optimizers.schedules.CosineDecay(RATE / 10, EPOCHS * steps, warmup_target=RATE, warmup_steps=steps // 2)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss)
    data = tf.data.Dataset.from_tensor_slices((pixels, labels)).shuffle(TRAINED, SEED).batch(BATCH, True).map(varied).prefetch(2)
    for epoch in range(EPOCHS):
        shown = model.fit(data, verbose=0).history["loss"][0]
        print(f"epoch {epoch + 1}: loss {shown:.3f}, exact {exact(model, *tested):.3f}, {time.time() - start:.0f} s", flush=True)
        save(model, sys.argv[1])
    print(f"{model.count_params()} parameters")


if __name__ == "__main__":
    main()
