"""Tests of ResNeXt-50 against torchvision.

`data/resnext_golden.npz` holds what torchvision 0.28 (PyTorch 2.13) gives in float64 with the tensors of
`draw_tensors` for `draw_image(224)`, preprocessed by torchvision's mean and deviation: `features` float32 (2048,),
`layer3` float32 (1024,) (the last map at stride 16, averaged), `top1` and `top1_p`.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from extract.backbones.build import FrozenBackbone
from extract.backbones.folding import fold_batch_norms
from extract.backbones.resnext import build_resnext
from extract.backbones.table import BACKBONES
from extract.backbones.weights import find_weights
from extract.runtime import preprocess
from features.common.errors import InputError
from tests.extract.backbones.resnext_tensors import draw_image, draw_tensors
from tests.extract.backbones.tensors.test_files import write_checkpoint

GOLDEN = Path(__file__).parent / "data" / "resnext_golden.npz"
ROW = BACKBONES["resnext50"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder that holds the tensors as `--weights` expects them."""
    folder = tmp_path_factory.mktemp("weights")
    write_checkpoint(folder / "resnext50.pth", draw_tensors())
    return folder


def relative_error(features: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(features - expected) / np.linalg.norm(expected))


def test_maps_and_classes_are_those_of_torchvision(folder):
    model = build_resnext(folder / "resnext50.pth", 224, include_top=True)
    outputs = [model.get_layer(ROW.taps[0]).output, model.get_layer(ROW.taps[1]).output, model.output]
    pixels = preprocess(draw_image(224)[None], "torch")
    fine, coarse, classes = map(keras.ops.convert_to_numpy, keras.Model(model.inputs[0], outputs)(pixels))
    golden = np.load(GOLDEN)
    assert (fine.shape, coarse.shape) == ((1, 14, 14, 1024), (1, 7, 7, 2048))
    assert relative_error(fine[0].mean((0, 1)), golden["layer3"]) < 3e-6
    assert relative_error(coarse[0].mean((0, 1)), golden["features"]) < 3e-6
    assert classes[0].argmax() == golden["top1"]
    assert classes[0].max() == pytest.approx(golden["top1_p"], rel=1e-4)


def test_the_row_of_the_table_gives_the_features_of_torchvision(folder):
    backbone = FrozenBackbone.of_table(ROW, find_weights(ROW, str(folder), None), "float32")
    model = backbone.build()
    assert model.count_params() == ROW.parameters
    pixels = preprocess(draw_image(backbone.input_size)[None], backbone.preprocessing)
    features = keras.ops.convert_to_numpy(fold_batch_norms(model)(pixels))
    assert features.shape == (1, ROW.width)
    assert relative_error(features[0], np.load(GOLDEN)["features"]) < 1e-5


def test_a_tensor_of_another_shape_or_none_is_refused(folder):
    tensors = draw_tensors()
    del tensors["fc.weight"], tensors["fc.bias"]
    path = folder / "altered.pth"
    with pytest.raises(InputError, match=r"the tensor fc\.bias of resnext50 is missing"):
        build_resnext(write_checkpoint(path, tensors), 224, include_top=True)
    dense = tensors | {"layer2.0.conv2.weight": np.zeros((256, 256, 3, 3), np.float32)}
    with pytest.raises(InputError, match=r"layer2\.0\.conv2\.weight has shape .*, not \(256, 8, 3, 3\)"):
        build_resnext(write_checkpoint(path, dense), 224)
    del tensors["layer4.0.downsample.1.running_var"]
    with pytest.raises(InputError, match=r"layer4\.0\.downsample\.1\.running_var of resnext50 is missing"):
        build_resnext(write_checkpoint(path, tensors), 224)
