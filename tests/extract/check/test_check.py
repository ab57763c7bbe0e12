"""`python -m extract check`: right backbones pass, and each kind of wrong preprocessing is found."""

import json
from functools import cache
from importlib.util import find_spec

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from extract import runtime
from extract.__main__ import app
from extract.backbones import build as backbones_build
from extract.backbones.build import FrozenBackbone
from extract.backbones.table import BACKBONES, EMBEDDED
from extract.backbones.weights import imagenet_file
from extract.check import run as check_run
from extract.check.canary import CANARY_TOLERANCE, deviation_of_canary, draw_canary
from extract.check.photographs import crop_photographs, load_photographs
from extract.check.plausibility import doubt_scale
from extract.images.resizing import resize
from features.common.keras_import import import_keras
from tests.extract.backbones.tiny_onnx import write_tiny

PREPROCESS = runtime.preprocess


def check(*arguments):
    return CliRunner().invoke(app, ["check", *map(str, arguments)])


@pytest.fixture(scope="module", autouse=True)
def _built_once():
    """Each check compiles its backbones; they are built and folded once for all checks."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("build_rows", "build_classifier"):
            patched.setattr(FrozenBackbone, name, cache(getattr(FrozenBackbone, name)))
        patched.setattr(backbones_build, "fold_batch_norms", cache(backbones_build.fold_batch_norms))
        yield


def test_the_embedded_backbones_are_right():
    result = check("--backbones", ",".join(EMBEDDED))
    assert result.exit_code == 0, result.output
    assert result.output.count("canary: its features differ by") == 3
    assert result.output.count("china.jpg is palace (class 698") == 3
    assert result.output.count("flower.jpg is daisy (class 985") == 2
    assert "nothing is wrong with efficientnet_lite0, efficientnet_lite1, efficientnet_lite2" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    ("change", "classes_wrong"),
    [
        (lambda images, mode: PREPROCESS(images[..., ::-1], mode), False),  # ImageNet's classes hardly need colours
        (lambda images, mode: PREPROCESS(images // 255, mode), True),
    ],
)
def test_wrong_preprocessing_is_found(monkeypatch, change, classes_wrong):
    monkeypatch.setattr(runtime, "preprocess", change)
    result = check("--backbones", "efficientnet_lite0")
    assert result.exit_code == 2
    assert "efficientnet_lite0: WRONG: canary: its features differ by" in result.output
    assert ("flower.jpg is something else" in result.output) == classes_wrong
    assert "efficientnet_lite0: loaded or preprocessed wrongly" in result.output


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """A folder with weights of mobilenet, whose hash is not published; its classifier tells the photographs apart."""
    keras = import_keras()
    from keras.src.legacy.saving import legacy_h5_format

    def save(model, name):
        with h5py.File(folder / name, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)

    keras.utils.set_random_seed(0)
    folder, row = tmp_path_factory.mktemp("weights"), BACKBONES["mobilenet"]
    model = keras.applications.MobileNet(weights=None)
    body = keras.Model(model.input, keras.layers.Flatten()(model.get_layer("dropout").output))
    photographs = np.stack([resize(photograph, 224, "crop") for photograph in load_photographs().values()])
    china, flower = np.asarray(body(PREPROCESS(photographs, row.preprocessing)))
    kernel, bias = np.zeros((1024, 1000), np.float32), np.full(1000, -100, np.float32)
    kernel[:, 698] = 10 * (china - flower) / ((china - flower) ** 2).sum()
    bias[[698, 985]] = -kernel[:, 698] @ (china + flower) / 2, 0
    model.get_layer("conv_preds").set_weights([kernel[None, None], bias])
    save(model, row.classifier_names[0])
    save(keras.applications.MobileNet(weights=None, include_top=False), row.weights_name)
    return folder


def test_the_classes_of_a_backbone_of_keras_are_right(mobilenet):
    result = check("--backbones", "mobilenet", "--weights-dir", mobilenet)
    assert result.exit_code == 0, result.output
    assert f"mobilenet: computed by {'openvino' if find_spec('openvino') else 'tensorflow'} on CPU" in result.output
    assert "mobilenet: canary: not done, for no features of it are recorded" in result.output
    assert "mobilenet: china.jpg is palace (class 698, 99%)" in result.output
    assert "mobilenet: flower.jpg is daisy (class 985, 99%)" in result.output


def test_the_classes_of_a_backbone_that_is_wrongly_preprocessed_are_not(mobilenet, monkeypatch):
    monkeypatch.setattr(runtime, "preprocess", lambda images, mode: PREPROCESS(255 - images, mode))
    result = check("--backbones", "mobilenet", "--weights-dir", mobilenet)
    assert result.exit_code == 2
    assert "WRONG: china.jpg is something else (class 985" in result.output


def test_without_a_file_with_the_classifier_it_is_named(mobilenet, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    row = BACKBONES["mobilenet"]
    (tmp_path / row.weights_name).symlink_to(mobilenet / row.weights_name)
    result = check("--backbones", "mobilenet", "--weights-dir", tmp_path)
    assert result.exit_code == 3
    assert "nothing is wrong" not in result.output
    assert f"photographs: not done, for {row.classifier_names[0]} is not on this machine" in " ".join(
        result.output.split()
    )


@pytest.mark.parametrize(
    ("pooling", "reshape", "exit_code", "words"),
    [
        ("cls", [0, 1024, 3], 3, "own: nothing can be said of its scale"),  # the first pixel
        ("avg", [], 2, "takes 0 to 1, or it is not trained"),  # the mean colour
    ],
)
def test_the_scale_of_an_onnx_model_is_judged(tmp_path, pooling, reshape, exit_code, words):
    path = tmp_path / "own.onnx"
    path.write_bytes(write_tiny([None, 32, 32, 3], reshape=reshape))
    sidecar = {"size": 32, "layout": "NHWC", "mean": (0, 0, 0), "std": (1, 1, 1), "pooling": pooling}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    result = check("--backbone", f"own={path}")
    assert "own: computed by onnxruntime on CPU" in result.output
    assert words in " ".join(result.output.split())
    assert result.exit_code == exit_code
    refused = check("--backbone", f"own={path}", "--pooling", "cls")
    assert refused.exit_code == 2
    assert "--pooling cls: the .json file beside" in refused.output


def test_weights_that_are_not_here_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    result = check("--backbones", "resnext50")
    assert result.exit_code == 2
    assert "resnext50_32x4d-7cdf4587.pth or resnext50_32x4d.safetensors is not on this machine" in result.output


def test_a_machine_without_backbones_has_nothing_to_check(monkeypatch):
    monkeypatch.setattr(check_run, "imagenet_file", lambda *arguments, **options: None)
    result = check()
    assert (result.exit_code, "nothing is wrong" in result.output) == (2, False)
    assert "nothing to check: the ImageNet weights of no backbone are on this machine" in result.output


def test_the_canary_holds_to_what_is_recorded():
    assert draw_canary(224).shape == (224, 224, 3)
    assert deviation_of_canary("efficientnet_lite0", np.zeros(1280)) > CANARY_TOLERANCE


#: What comes before efficientnet_lite0 in a model of one's own, as scale and offset of pixels: right and wrong.
RIGHT, FOR_0_TO_1, FOR_MINUS_1_TO_1, TWICE = (
    (1 / 128, -127 / 128),
    (255 / 128, -127 / 128),
    (1, 0),
    (1 / 255 / 128, -127 / 128),
)


@pytest.fixture(scope="module")
def bodies():
    """efficientnet_lite0, trained and with random weights."""
    from extract.backbones.efficientnet_lite import build

    import_keras().utils.set_random_seed(0)
    return build(0, imagenet_file(BACKBONES["efficientnet_lite0"]), 224), build(0, None, 224)


@pytest.mark.parametrize(
    ("scale", "random", "is_wrong", "words"),
    [
        (RIGHT, False, False, "its scale is plausible"),
        (FOR_0_TO_1, False, True, "half the contrast"),
        (FOR_MINUS_1_TO_1, False, True, "its pixels are too large"),
        (TWICE, False, True, "its pixels are too small"),
        (RIGHT, True, None, "nothing can be said of its scale"),
    ],
)
def test_the_scale_of_a_model_of_ones_own_is_judged(bodies, scale, random, is_wrong, words):
    factor, offset = scale
    found, why = doubt_scale(lambda images: np.asarray(bodies[random](np.float32(factor) * images + offset)), 224)
    assert (found, words in why) == (is_wrong, True), why


def test_nothing_is_wrong_with_a_model_of_ones_own(bodies, tmp_path):
    keras = import_keras()
    image = keras.Input((224, 224, 3))
    keras.Model(image, bodies[False](keras.layers.Rescaling(*RIGHT)(image))).save(tmp_path / "own.keras")
    result = check("--backbone", f"own={tmp_path / 'own.keras'}")
    assert "its scale is plausible" in " ".join(result.output.split())
    assert (result.exit_code, "nothing is wrong with own" in result.output) == (0, True), result.output


def test_tokens_of_a_model_of_ones_own_are_pooled(tmp_path):
    keras = import_keras()
    image = keras.Input((32, 32, 3))
    pixels = keras.layers.Flatten()(image)
    keras.Model(image, keras.layers.Reshape((17, 3))(pixels[:, :51])).save(tmp_path / "own.keras")
    option = f"own={tmp_path / 'own.keras'}"
    result = check("--backbone", option, "--pooling", "cls")
    assert "own: nothing can be said of its scale" in result.output
    assert result.exit_code == 3
    result = check("--backbone", option)
    assert "gives tokens (None, 17, 3). Say what becomes of them: --pooling cls" in " ".join(result.output.split())
    assert result.exit_code == 2


def test_two_models_of_one_name_and_pooling_without_a_model_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.keras").write_bytes(b"not read")
    result = check("--backbone", f"m={tmp_path}/a.keras", "--backbone", f"m={tmp_path}/b.keras")
    assert (result.exit_code, "--backbone: a name is duplicated" in result.output) == (2, True)
    result = check("--backbones", "efficientnet_lite0", "--pooling", "cls")
    assert result.exit_code == 2
    assert "--pooling cls is of one model of your own. Give one --backbone" in " ".join(result.output.split())


def test_features_without_content_or_that_are_not_numbers_are_wrong():
    is_wrong, words = doubt_scale(lambda images: np.ones((len(images), 4)), 32)
    assert is_wrong
    assert words.endswith("its pixels are too small, as those divided by 255 twice, or it is not trained")
    assert doubt_scale(lambda images: np.full((len(images), 4), np.nan), 32) == (
        True,
        "its features of photographs are not finite numbers",
    )


def test_the_views_of_crops_are_mirrored_and_closer():
    crops, views = crop_photographs(224)
    assert crops.shape == views.shape == (12, 224, 224, 3)
    inner = crops[0, 12:212, 12:212][:, ::-1]
    assert abs(inner.mean() - views[0].mean()) < 1
