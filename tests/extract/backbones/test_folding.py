"""extract.runtime: a folded model gives the features of the model that Keras built."""

import numpy as np
import pytest

from extract.backbones.folding import fold_batch_norms
from features.common.keras_import import import_keras


@pytest.fixture(scope="module")
def keras():
    return import_keras()


def as_trained(model):
    """Draw statistics and biases as training would leave them; fresh ones are 0 and 1, and hide every mistake."""
    random = np.random.default_rng(1)
    for variable in (variable for layer in model.layers for variable in layer.weights):
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "moving_mean", "bias")):
            variable.assign(random.normal(0, 0.1, variable.shape))
    return model


def batch_norms(keras, model):
    return sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)


def assert_same_features(folded, model, size):
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    before = [np.asarray(weight) for weight in model.get_weights()]
    features, expected = np.asarray(folded(images)), np.asarray(model(images))
    assert np.linalg.norm(features - expected) < 1e-5 * np.linalg.norm(expected)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))


@pytest.mark.parametrize(
    ("builder", "left"),
    [
        ("ResNet50", 0),  # convolutions with a bias
        ("Xception", 0),  # separable convolutions
        ("EfficientNetB0", 0),  # depthwise convolutions, Normalization
        ("DenseNet121", 62),  # norms before convolutions: 58 layers, 3 transitions and the end have theirs first
    ],
)
def test_architectures_of_keras_fold(keras, builder, left):
    model = getattr(keras.applications, builder)(
        include_top=False, weights=None, pooling="avg", input_shape=(75, 75, 3)
    )
    keras.utils.set_random_seed(0)
    folded = fold_batch_norms(as_trained(model))
    assert batch_norms(keras, folded) == left
    assert_same_features(folded, model, 75)


def test_a_norm_that_ends_the_model_and_one_without_scale_or_shift_called_by_keyword_fold(keras):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(6, 3, groups=3)(inputs)
    x = keras.layers.BatchNormalization(scale=False, center=False)(inputs=x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False)(x)
    model = as_trained(keras.Model(inputs, keras.layers.BatchNormalization(axis=3)(x)))
    folded = fold_batch_norms(model)
    assert batch_norms(keras, folded) == 0
    assert_same_features(folded, model, 9)


def _activation_between(keras, inputs):
    return keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, activation="relu")(inputs))


def _second_reader(keras, inputs):
    maps = keras.layers.Conv2D(4, 3)(inputs)
    return keras.layers.Add()([maps, keras.layers.BatchNormalization()(maps)])


def _convolution_run_twice(keras, inputs):
    convolution = keras.layers.Conv2D(3, 3, padding="same")
    return keras.layers.BatchNormalization()(convolution(keras.layers.ReLU()(convolution(inputs))))


def _norm_run_twice(keras, inputs):
    norm = keras.layers.BatchNormalization()
    return norm(keras.layers.ReLU()(norm(keras.layers.Conv2D(4, 3)(inputs))))


def _norm_of_rows(keras, inputs):
    return keras.layers.BatchNormalization(axis=1)(keras.layers.Conv2D(4, 3)(inputs))


def _transposed_convolution(keras, inputs):
    return keras.layers.BatchNormalization()(keras.layers.Conv2DTranspose(4, 3)(inputs))


def _low_rank_weights_beside_the_kernel(keras, inputs):
    convolution = keras.layers.Conv2D(4, 3)
    maps = convolution(inputs)
    convolution.enable_lora(2)
    return keras.layers.BatchNormalization()(maps)


def _norm_of_another_precision(keras, inputs):
    maps = keras.layers.Conv2D(4, 3, dtype="mixed_float16")(inputs)
    return keras.layers.BatchNormalization(dtype="float32")(maps)


def _norm_first(keras, inputs):
    return keras.layers.Conv2D(4, 3)(keras.layers.BatchNormalization()(inputs))


@pytest.mark.parametrize(
    "build",
    [
        _activation_between,
        _second_reader,
        _convolution_run_twice,
        _norm_run_twice,
        _norm_of_rows,
        _transposed_convolution,
        _low_rank_weights_beside_the_kernel,
        _norm_of_another_precision,
        _norm_first,
    ],
)
def test_what_cannot_be_folded_is_left(keras, build):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 3))
    model = as_trained(keras.Model(inputs, build(keras, inputs)))
    folded = fold_batch_norms(model)
    assert batch_norms(keras, folded) == batch_norms(keras, model)
    assert_same_features(folded, model, 9)


def test_a_convolution_that_is_also_an_output_is_left(keras):
    inputs = keras.Input((9, 9, 3))
    maps = keras.layers.Conv2D(4, 3)(inputs)
    model = keras.Model(inputs, {"maps": maps, "normed": keras.layers.BatchNormalization()(maps)})
    assert fold_batch_norms(model) is model


def test_a_model_inside_a_model_stays_as_it_is(keras):
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((9, 9, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    )
    inputs = keras.Input((9, 9, 3))
    maps = keras.layers.Conv2D(2, 3)(as_trained(inner)(inputs))
    model = as_trained(keras.Model(inputs, keras.layers.BatchNormalization()(maps)))
    folded = fold_batch_norms(model)
    assert folded.get_layer(inner.name) is inner
    assert batch_norms(keras, folded) == 0
    assert_same_features(folded, model, 9)
