"""extract.backbones.onnx_model and extract.engines.onnx: .onnx files give the features that their sidecars say."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from extract.backbones.onnx_model import OnnxBackbone, has_external_arrays, read_sidecar
from extract.backbones.weights import find_model
from extract.images.reading import Reading
from extract.pictures.heat import _freeze
from extract.runtime import CPU_BATCH
from features.common.errors import InputError
from features.store.cache import FeatureCache
from features.store.recipe import Recipe, extract_options
from tests.extract.backbones.tiny_onnx import write_tiny
from tests.extract.stand_ins import write_images

pytest.importorskip("onnxruntime")

SCALE = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 0.2]}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
NORMALISED = (PIXELS / 255 - SCALE["mean"]) / SCALE["std"]


def backbone(folder, sidecar, **graph):
    path = folder / "mine.onnx"
    path.write_bytes(write_tiny(**graph))
    path.with_suffix(".json").write_text(json.dumps({"size": 4, "layout": "NHWC", **sidecar}))
    return OnnxBackbone.of_model(*find_model(f"mine={path}"))


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_maps_of_either_layout_are_averaged_over_their_positions(tmp_path, layout, batch):
    shape = [batch, 4, 4, 3] if layout == "NHWC" else [batch, 3, 4, 4]
    mine = backbone(tmp_path, {"layout": layout, "pooling": "avg", **SCALE}, shape=shape)
    extractor = mine.compile(None, "auto", PIXELS)
    (found,) = extractor(PIXELS)
    assert found.dtype == np.float32
    assert extractor.batch_size == (batch or CPU_BATCH)
    np.testing.assert_allclose(found, NORMALISED.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


def test_a_model_that_takes_uint8_receives_the_pixels(tmp_path):
    mine = backbone(tmp_path, {"pooling": "avg"}, shape=[None, 4, 4, 3], dtype=np.uint8)
    np.testing.assert_allclose(mine.compile(3, "auto", PIXELS)(PIXELS)[0], PIXELS.mean(axis=(1, 2)), rtol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_tokens_are_pooled_as_the_sidecar_says(tmp_path, pooling):
    mine = backbone(
        tmp_path, {"pooling": pooling, "prefix_tokens": 2, **SCALE}, shape=[None, 4, 4, 3], reshape=[0, 16, 3]
    )
    tokens = NORMALISED.reshape(5, 16, 3)
    parts = {"cls": tokens[:, 0], "mean": tokens[:, 2:].mean(axis=1)}
    expected = np.concatenate([parts[part] for part in pooling.split("+")], axis=1)
    np.testing.assert_allclose(mine.compile(None, "auto", PIXELS)(PIXELS)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("sidecar", "graph", "message"),
    [
        ({"size": 5, "pooling": "avg", **SCALE}, {}, r"takes inputs of shape .*; its sidecar says \('N', 5, 5, 3\)"),
        (
            {"layout": "NCHW", "pooling": "avg", **SCALE},
            {},
            r"says \('N', 3, 4, 4\) \(NCHW\)\. Correct size",
        ),
        ({"pooling": "avg"}, {}, r"takes tensor\(float\)\. Give mean and std, of pixels from 0 to 1"),
        ({"pooling": "avg", **SCALE}, {"dtype": np.uint8}, r"takes tensor\(uint8\)\. Leave mean and std out"),
        (SCALE, {}, r"gives features as float32 \(4, 4, 4, 3\), which pooling none does not fit"),
        (SCALE, {"reshape": [1, -1]}, r"as \(1, 192\) of 4 images; the first axis is that of the images"),
        ({"pooling": "avg", **SCALE}, {"reshape": [0, 2, 8, 3]}, r"\(4, 2, 8, 3\), no square maps in the layout NHWC"),
        (
            {"pooling": "avg", **SCALE},
            {"mixes": True},
            "gives an image other features beside other images",
        ),
        ({"output": "other", **SCALE}, {}, r"has the outputs features; .*mine\.json names 'other'"),
    ],
)
def test_a_model_that_does_not_do_what_its_sidecar_says_is_refused(tmp_path, sidecar, graph, message):
    mine = backbone(tmp_path, sidecar, **{"shape": [None, 4, 4, 3], **graph})
    with pytest.raises(InputError, match=message):
        mine.compile(None, "auto", PIXELS)(PIXELS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"a\.json is not JSON"),
        ("[]", r"is not a JSON object"),
        ("[" * 100_000, r"a\.json is not JSON"),
        ('{"size": 4, "layout": "NHWC", "source": "\\ud800"}', r"a\.json: .*Write for example"),
        ('{"size": 4, "layout": "NHWC", "mean": [0, 0, 0], "std": [1, 1, 1e-300]}', r"std is \[1, 1, 1e-300\]"),
        ('{"size": 4}', r"layout is missing\. Write for example"),
        ('{"size": 4, "layout": "NHWC", "scale": 2}', r"has a field 'scale'\. Expected some of size, layout"),
        ('{"size": 4, "layout": "NHWC", "size": 8}', r"a\.json has the field 'size' more than once\. Keep the one"),
        ('{"size": 4, "layout": "HWC"}', r"layout is 'HWC'"),
        ('{"size": 4, "layout": "NHWC", "mean": [123, 117, 104], "std": [1, 1, 1]}', r"mean is \[123, 117, 104\]"),
        ('{"size": 4, "layout": "NHWC", "mean": [0, 0, 0]}', r"mean and std go together"),
        ('{"size": 4, "layout": "NHWC", "pooling": "cls", "prefix_tokens": 0}', r"prefix_tokens is 0"),
    ],
)
def test_a_fault_of_a_sidecar_is_one_message(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        read_sidecar(tmp_path / "a.json", content.encode())


def test_a_model_without_a_sidecar_says_how_to_write_one(tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r'mine\.json is missing\. Write it, for example: \{"size": 224'):
        OnnxBackbone.of_model(*find_model(f"mine={path}"))


def test_a_file_that_is_no_model_is_named(tmp_path):
    mine = backbone(tmp_path, {"pooling": "avg", **SCALE}, shape=[None, 4, 4, 3])
    mine.weights.path.write_bytes(b"no model")
    with pytest.raises(InputError, match=r"mine\.onnx cannot be opened by ONNX Runtime: "):
        mine.compile(None, "auto", PIXELS)


def test_the_sidecar_is_part_of_the_fingerprint_and_commands_name_the_file(tmp_path):
    graph = {"shape": [None, 4, 4, 3]}
    (recipe,) = backbone(tmp_path, {"pooling": "avg", **SCALE}, **graph).recipes("float32", Reading())
    (other,) = backbone(tmp_path, {"pooling": "avg", **SCALE, "licence": "MIT"}, **graph).recipes("float32", Reading())
    (cubic,) = backbone(tmp_path, {"pooling": "avg", **SCALE, "interpolation": "bicubic"}, **graph).recipes(
        "float32", Reading()
    )
    assert len({recipe.fingerprint, other.fingerprint, cubic.fingerprint}) == 3
    assert "then bicubic" in cubic.preprocessing
    assert Recipe.from_attributes(cubic.attributes()) == cubic
    options = extract_options({"mine": recipe})
    assert options[0][:4] == ["--backbone", f"mine={tmp_path / 'mine.onnx'}", "--features", "last"]


def test_an_extraction_runs_it_and_a_heat_map_says_that_there_is_none(tmp_path):
    images = write_images(tmp_path / "data" / "train", 3, side=4)
    mine = backbone(tmp_path, {"pooling": "avg", **SCALE}, shape=[None, 4, 4, 3])
    cache = tmp_path / "cache"
    command = ["run", str(tmp_path / "data"), "--backbone", f"mine={mine.weights.path}", "--cache", str(cache)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 rows extracted" in result.output
    pixels = np.stack(list(images.values())) / 255
    expected = ((pixels - SCALE["mean"]) / SCALE["std"]).mean(axis=(1, 2))
    np.testing.assert_allclose(FeatureCache(cache).read("train", ["mine"])[1], expected, rtol=1e-5, atol=1e-6)
    assert "nothing left to do: all 3 rows are up to date" in CliRunner().invoke(app, command).output
    with pytest.raises(InputError, match=r"mine is the \.onnx file .*mine\.onnx, which is run as a whole"):
        _freeze(FeatureCache(cache).open("train", "mine").recipe, None)
    for option in (["--layer", "a"], ["--taps", "a,b"], ["--pooling", "cls"], ["--features", "mid"]):
        refused = CliRunner().invoke(app, [*command, *option])
        assert refused.exit_code == 2
        assert (
            f"{' '.join(option) if option[1] == 'mid' else option[0]}: {mine.weights.path} is run as a whole"
            in refused.output
        )
    refused = CliRunner().invoke(app, [*command, "--engine", "openvino"])
    assert refused.exit_code == 2
    assert "--engine openvino is for backbones of Keras: ONNX Runtime runs .onnx files" in refused.output


def test_weights_in_other_files_are_noticed():
    assert not has_external_arrays(write_tiny(shape=[1, 4, 4, 3], reshape=[0, 16, 3]))
    assert has_external_arrays(write_tiny(shape=[1, 4, 4, 3], reshape=[0, 16, 3], external=True))
    assert not has_external_arrays(b"no protocol buffer")
