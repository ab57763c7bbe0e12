"""Tests of EfficientNet-Lite against an independent implementation.

`data/efficientnet_lite_golden.npz` holds, for N = 0, 1, 2, what `draw_image` gives: `liteN_features` float32 (1280,),
`liteN_top1` (class index of ImageNet-1k) and `liteN_top1_p` (its softmax probability). It was made once with functions
of PyTorch 2.13 in float64: conv2d over explicitly padded input, batch_norm, relu6; widths and depths taken from the
shapes in the packaged checkpoints, which `torch.load` read. In float32 that code agreed on other images with the
PyTorch package efficientnet-lite-pytorch to 2e-6 relative.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from extract.backbones.efficientnet_lite import build
from extract.backbones.table import BACKBONES
from extract.backbones.tensors.files import read_tensors
from extract.backbones.weights import imagenet_file
from features.common.errors import InputError
from tests.extract.backbones.tensors.test_files import write_checkpoint

GOLDEN = Path(__file__).parent / "data" / "efficientnet_lite_golden.npz"
INPUT_SIZES = {0: 224, 1: 240, 2: 260}
# Counted over the packaged checkpoints: all values but num_batches_tracked; those without the running statistics.
PARAMETERS = {0: (4_694_024, 4_652_008), 1: (5_470_344, 5_416_680), 2: (6_150_168, 6_092_072)}


def weights_file(variant: int) -> Path | None:
    """Find the packaged checkpoint."""
    return imagenet_file(BACKBONES[f"efficientnet_lite{variant}"])


def draw_image(size: int) -> np.ndarray:
    """Draw three discs over three gradients: uint8 (size, size, 3), RGB, integers throughout."""
    y, x = np.mgrid[:size, :size].astype(np.int64)
    image = np.stack([x * 255 // (size - 1), y * 255 // (size - 1), (x + y) * 255 // (2 * size - 2)], axis=-1)
    for centre_y, centre_x, radius, colour in (
        (size // 3, size // 3, size // 5, (230, 40, 20)),
        (2 * size // 3, size // 2, size // 7, (20, 60, 220)),
        (size // 2, 4 * size // 5, size // 9, (250, 250, 240)),
    ):
        image[(y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2] = colour
    return image.astype(np.uint8)


def run(model: keras.Model, image: np.ndarray) -> np.ndarray:
    """Preprocess one image and run it: the model's output (K,)."""
    batch = (image[None].astype(np.float32) - 127) / 128
    return keras.ops.convert_to_numpy(model(batch, training=False))[0]


@pytest.fixture(scope="module")
def packaged_tensors() -> dict[str, np.ndarray]:
    path = weights_file(0)
    assert path is not None
    return read_tensors(path)


@pytest.fixture(scope="module")
def lite0() -> keras.Model:
    """The smallest, without the top."""
    return build(0, weights_file(0), 224)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_features_are_those_of_the_independent_implementation(variant, lite0):
    model = lite0 if variant == 0 else build(variant, weights_file(variant), INPUT_SIZES[variant])
    features = run(model, draw_image(INPUT_SIZES[variant]))
    expected = np.load(GOLDEN)[f"lite{variant}_features"]
    assert model.input_shape == (None, INPUT_SIZES[variant], INPUT_SIZES[variant], 3)
    assert features.shape == (1280,)
    assert features.dtype == np.float32
    assert np.linalg.norm(features - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("variant", [0, 1, 2])
def test_classes_and_parameters_with_the_top(variant):
    model = build(variant, weights_file(variant), INPUT_SIZES[variant], include_top=True)
    probabilities = run(model, draw_image(INPUT_SIZES[variant]))
    golden = np.load(GOLDEN)
    assert probabilities.argmax() == golden[f"lite{variant}_top1"]
    assert probabilities.max() == pytest.approx(golden[f"lite{variant}_top1_p"], abs=1e-5)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert (model.count_params(), trainable) == PARAMETERS[variant]


def test_head_activation_averages_to_the_features(lite0):
    image = draw_image(224)
    feature_map = run(keras.Model(lite0.input, lite0.get_layer("head_activation").output), image)
    assert feature_map.shape == (7, 7, 1280)
    assert feature_map.min() >= 0
    assert feature_map.max() <= 6
    np.testing.assert_allclose(feature_map.mean(axis=(0, 1)), run(lite0, image), rtol=1e-4, atol=1e-6)


def test_random_weights_follow_the_seed():
    stems = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        stems.append(keras.ops.convert_to_numpy(build(0, None, 224).get_layer("conv_stem").kernel))
    np.testing.assert_array_equal(stems[0], stems[1])
    assert not np.array_equal(stems[0], stems[2])


def test_rewritten_checkpoint_gives_the_same_weights(packaged_tensors, lite0, tmp_path):
    rewritten = build(0, write_checkpoint(tmp_path / "w.pth", packaged_tensors), 224).get_weights()
    for ours, theirs in zip(rewritten, lite0.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_checkpoint_without_the_top_serves_features_only(packaged_tensors, tmp_path):
    body = {name: tensor for name, tensor in packaged_tensors.items() if not name.startswith("_fc")}
    path = write_checkpoint(tmp_path / "w.pth", body)
    assert build(0, path, 224).output_shape == (None, 1280)
    with pytest.raises(InputError, match=r"the tensor _fc\..* is missing"):
        build(0, path, 224, include_top=True)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (
            "_blocks.3._bn2.running_var",
            None,
            r"the tensor _blocks\.3\._bn2\.running_var of .* is missing",
        ),
        (
            "_blocks.16._bn0.weight",
            np.ones(4, "<f4"),
            r"the tensor _blocks\.16\._bn0\.weight is not one of",
        ),
        ("_blocks.16._bn0.num_batches_tracked", np.ones((), "<i8"), "is not one of efficientnet_lite0"),
        (
            "_conv_stem.weight",
            np.ones((32, 3, 3, 4), "<f4"),
            r"_conv_stem\.weight has shape \(32, 3, 3, 4\), not \(32, 3, 3, 3\)",
        ),
        ("_blocks.0._depthwise_conv.weight", np.ones((1, 32, 3, 3), "<f4"), r"not \(32, 1, 3, 3\)"),
        ("_conv_stem.weight", np.ones((32, 3, 3, 3), "<i8"), r"_conv_stem\.weight is int64, not float32"),
    ],
)
def test_checkpoint_that_does_not_fit_is_refused(packaged_tensors, tmp_path, name, tensor, message):
    altered = packaged_tensors | {name: tensor}
    path = write_checkpoint(tmp_path / "w.pth", {key: value for key, value in altered.items() if value is not None})
    with pytest.raises(InputError, match=message) as caught:
        build(0, path, 224)
    assert str(path) in str(caught.value)


def test_checkpoint_of_another_variant_is_refused():
    with pytest.raises(InputError, match="efficientnet_lite0"):
        build(0, weights_file(2), 224)


def test_unknown_variant_is_refused():
    with pytest.raises(InputError, match="received 3"):
        build(3, None, 224)
