"""`python -m extract run`: what people type, against keras.applications itself and golden features."""

import csv
import shutil
import sys
from functools import wraps
from pathlib import Path

import cv2
import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from extract.backbones.build import FrozenBackbone
from extract.backbones.folding import fold_batch_norms
from extract.backbones.table import BACKBONES, CHALLENGE
from extract.backbones.taps import find_layer
from extract.backbones.weights import Weights
from extract.choices import _way_apart
from extract.runtime import preprocess
from extract.scans import dicom
from features.common.errors import InputError
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache
from scripts.phantom import write_phantom
from tests.extract.backbones.test_efficientnet_lite import GOLDEN, draw_image
from tests.extract.images.test_heic import UPRIGHT
from tests.extract.scans.written import dataset, file_bytes, slice_of_hu
from tests.extract.stand_ins import write_images
from tests.test_rooms import HEAVY, RUN, packages_loaded

KERAS_ROWS = [row for row in BACKBONES.values() if row.of_keras]
#: What the command computes by an engine, at full size: of each family of the challenge one.
COMMANDED = ("xception", "resnet50", "vgg16")


def extract(*arguments):
    result = CliRunner().invoke(app, ["run", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def relative_error(features, reference):
    return np.linalg.norm(features - reference) / np.linalg.norm(reference)


@pytest.fixture
def built(row, monkeypatch):
    """The models of a row of the table that keras.applications builds, as they are built.

    Weights are drawn by numpy, which is quick, to a scale at which no map vanishes.
    """
    keras = import_keras()
    builder, built = getattr(keras.applications, row.builder), []
    by_keras, random = keras.Variable._initialize_with_initializer, np.random.default_rng(0)

    def draw(variable, initializer):
        if type(initializer).__name__ in ("Zeros", "Ones"):
            variable._initialize(np.full(variable.shape, type(initializer).__name__ == "Ones", np.float32))
        elif len(variable.shape) > 1:
            read = variable.shape[:-2] if variable.shape[-1] == 1 else variable.shape[:-1]  # a depthwise kernel or not
            scale = np.float32(np.sqrt(1 / np.prod(read)))
            variable._initialize(scale * random.standard_normal(variable.shape, np.float32))
        else:
            by_keras(variable, initializer)

    @wraps(builder)
    def build(**arguments):
        size, *_ = arguments["input_shape"]
        assert arguments == {"include_top": False, "weights": None, "pooling": "avg", "input_shape": (size, size, 3)}
        built.append(builder(**arguments))
        return built[-1]

    monkeypatch.setattr(keras.Variable, "_initialize_with_initializer", draw)
    monkeypatch.setattr(keras.applications, row.builder, build)
    yield built
    keras.backend.clear_session()


def draw_red_and_blue(size):
    """Two images, uint8 (2, size, size, 3): half noise, half red; and the same with red and blue exchanged."""
    red = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    red[:, size // 2 :] = 255, 0, 0
    return np.stack([red, red[..., ::-1]])


@pytest.mark.parametrize("row", [BACKBONES[name] for name in COMMANDED], ids=lambda row: row.name)
def test_the_command_gives_what_keras_applications_gives(row, built, tmp_path):
    folder, cache = tmp_path / "data" / "test", tmp_path / "cache"
    folder.mkdir(parents=True)
    for name, image in zip(("a_red", "b_blue"), draw_red_and_blue(row.input_size), strict=True):
        cv2.imwrite(str(folder / f"{name}.png"), image[..., ::-1])
    result = extract(
        tmp_path / "data", "--backbones", row.name, "--weights", "random", "--cache", cache, "--batch-size", 2
    )
    assert result.exit_code == 0, result.output
    found = [FeatureCache(cache).read("test", [name], ["a_red", "b_blue"])[1] for name in (row.name, f"{row.name}.mid")]
    # Built again where the engine is left out: these features are too small for float32.
    assert built[-1].input_shape == (None, row.input_size, row.input_size, 3)
    assert_given_by_keras_applications(row, built[-1], *found)


@pytest.mark.parametrize("row", [row for row in KERAS_ROWS if row.name not in COMMANDED], ids=lambda row: row.name)
def test_a_keras_backbone_gives_what_keras_applications_gives(row, built):
    """Without the engines, which hold themselves to these features before they compute; and at a small size."""
    frozen = FrozenBackbone.of_table(row, Weights("random", "random", "", None), "float32", ("last", "mid"), size=128)
    folded = fold_batch_norms(frozen.build_rows())
    found = map(np.asarray, folded(preprocess(draw_red_and_blue(128), row.preprocessing)))
    (model,) = built
    assert model.input_shape == (None, 128, 128, 3)
    assert_given_by_keras_applications(row, model, *found)


def assert_given_by_keras_applications(row, model, features, mid):
    """Hold features and mid-level features of the red and the blue image to those of a model."""
    images = draw_red_and_blue(model.input_shape[1]).astype(np.float32)
    preprocess_input = sys.modules[getattr(import_keras().applications, row.builder).__module__].preprocess_input
    whole = import_keras().Model(model.inputs, [model.output, *(find_layer(model, tap).output for tap in row.taps)])
    last, *maps = (np.asarray(o) for o in whole(preprocess_input(images)))
    of_red, of_blue = last
    assert features.shape == (2, row.width)
    assert model.count_params() == row.parameters
    assert relative_error(features[0], of_red) < 1e-4
    assert relative_error(features[1], of_blue) < 1e-4
    assert relative_error(of_blue, of_red) > 1e-3  # the checks above could have failed
    assert coarsest_sides(model)[:2] == [tap.shape[1] for tap in maps][::-1]
    maps = [tap.astype(np.float64) for tap in maps]
    expected = np.hstack([pool(of_layer, axis=(1, 2)) for of_layer in maps for pool in (np.mean, np.max, np.std)])
    assert mid.shape == expected.shape
    assert relative_error(mid, expected) < 1e-4
    assert relative_error(mid[0], expected[1]) > 1e-3


def coarsest_sides(model):
    """The sides of all square maps of a model of more than one position, the smallest first."""
    tree = import_keras().tree
    operations = [operation for operation in model.operations if type(operation).__name__ != "ZeroPadding2D"]
    shapes = [tensor.shape for operation in operations for tensor in tree.flatten(operation.output)]
    return sorted({shape[1] for shape in shapes if len(shape) == 4 and shape[1] == shape[2] > 1})


def test_random_weights_are_those_of_seed_0():
    keras = import_keras()
    frozen = FrozenBackbone.of_table(BACKBONES["vgg16"], Weights("random", "random", "", None), "float32")
    weights = [frozen.build().get_weights() for _ in range(2)]
    keras.utils.set_random_seed(0)
    weights.append(keras.applications.VGG16(include_top=False, weights=None).get_weights())
    for first, second, of_keras in zip(*weights, strict=True):
        np.testing.assert_array_equal(first, of_keras)
        np.testing.assert_array_equal(second, of_keras)


def test_an_embedded_backbone_gives_the_golden_features(tmp_path):
    """Of the first; `extract check` compiles the others, and holds them to their canaries."""
    name = "efficientnet_lite0"
    folder, cache = tmp_path / "data" / "test", tmp_path / "cache"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "a.png"), draw_image(BACKBONES[name].input_size)[..., ::-1])
    assert extract(tmp_path / "data", "--backbones", name, "--cache", cache).exit_code == 0
    _, features = FeatureCache(cache).read("test", [name])
    assert relative_error(features[0], np.load(GOLDEN)["lite0_features"]) < 1e-4


def test_a_model_of_ones_own_runs_beside_the_table(tmp_path, own_model):
    images = write_images(tmp_path / "data" / "train", 3, side=16)
    cache = tmp_path / "cache"
    result = extract(tmp_path / "data", "--backbone", f"own={own_model}", "--cache", cache)
    assert result.exit_code == 0, result.output
    assert "understood: mid-level features of own: of its layers rescaling and re_lu (others: --taps A,B)" in " ".join(
        result.output.split()
    )
    assert "6 rows extracted" in result.output
    _, features = FeatureCache(cache).read("train", ["own"])
    model = import_keras().saving.load_model(own_model)
    expected = np.asarray(model(np.stack(list(images.values())).astype(np.float32))).mean(axis=(1, 2))
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)

    again = extract(tmp_path / "data", "--backbone", f"own={own_model}", "--cache", cache)
    assert again.exit_code == 0
    assert "nothing left to do: all 6 rows are up to date" in again.output


def test_another_backbone_reads_images_as_the_rest_of_the_cache_and_layers_need_their_features(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 3, side=16)
    cache = tmp_path / "cache"
    assert extract(tmp_path / "data", "--backbone", f"a={own_model}", "--cache", cache, "--views", "2").exit_code == 0
    assert extract(tmp_path / "data", "--backbone", f"b={own_model}", "--cache", cache).exit_code == 0
    assert FeatureCache(cache).open("train", "b").recipe.views == ("identity", "random1")
    for option, other in (("--layer", "mid"), ("--taps", "last")):
        refused = extract(tmp_path / "data", "--backbone", f"c={own_model}", option, "relu", "--features", other)
        assert refused.exit_code == 2
        assert f"{option} relu is for the features" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        ("--views=2", "--views=1", "--views 2 in train/a.h5, train/a.mid.h5; --views 1 in train/b.h5, train/b.mid.h5."),
        ("--views=hflip", "--views=2", "--views hflip in train/a.h5, train/a.mid.h5; --views 2 in"),
        ("--fit=pad", "--fit=crop", "--fit pad in train/a.h5, train/a.mid.h5; --fit crop in"),
        ("--range=5,9", "--range=0,65535", "--range 5,9 in train/a.h5, train/a.mid.h5; --range 0,65535 in"),
        ("--orientation=exif", "--orientation=stored", "--orientation exif in train/a.h5, train/a.mid.h5; --orien"),
    ],
)
def test_rows_extracted_differently_are_never_replaced_unasked(tmp_path, own_model, first, second, said):
    write_images(tmp_path / "data" / "train", 2, side=16)
    cache = tmp_path / "cache"
    a, b = ((tmp_path / "data", "--backbone", f"{name}={own_model}", "--cache", cache) for name in "ab")
    assert extract(*a, first).exit_code == 0
    assert extract(*b, second).exit_code == 0
    before = {path: path.read_bytes() for path in cache.rglob("*.h5")}
    both = (*a, "--backbone", f"b={own_model}")
    result = extract(*both)
    assert result.exit_code == 2
    message = " ".join(result.output.split())
    assert f"{cache} has rows of these backbones that were extracted differently: {said}" in message
    option = first.partition("=")[0]
    assert f"Give {option}, and rows extracted otherwise are extracted again and replaced; or run" in message
    for alone in (a, b):
        assert "nothing left to do: all 4 rows are up to date" in extract(*alone).output
    assert {path: path.read_bytes() for path in cache.rglob("*.h5")} == before
    assert "4 rows extracted" in extract(*both, first).output
    assert "nothing left to do: all 8 rows are up to date" in extract(*both).output


def test_ranges_are_kept_beside_rows_of_one_view_and_do_not_matter_to_a_mirror_image(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2, side=16)
    arguments = (tmp_path / "data", "--features", "last", "--cache", tmp_path / "cache")
    a, b, c = (("--backbone", f"{name}={own_model}") for name in "abc")
    for backbone, *views in ((a, "--views=1"), (b, "--views=2", "--ranges=rotate=9"), (c, "--views=2")):
        assert extract(*arguments, *backbone, *views).exit_code == 0
    assert "2 rows extracted" in extract(*arguments, *a, *b, "--views", "2").output
    result = extract(*arguments, *b, *c, "--views", "2")
    assert result.exit_code == 2
    assert "Give --ranges, and rows" in " ".join(result.output.split())
    assert "4 rows extracted" in extract(*arguments, *b, *c, "--views", "hflip").output


def test_a_new_split_is_read_as_the_other_rows_of_its_backbone(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2, side=16)
    cache = tmp_path / "cache"
    for name, views, low_high in (("a", "1", "0,65535"), ("b", "2", "5,9")):
        options = ("--backbone", f"{name}={own_model}", "--cache", cache, "--views", views, "--range", low_high)
        assert extract(tmp_path / "data", *options).exit_code == 0
    folder = tmp_path / "data" / "train"
    assert extract(folder, "--split", "new", "--backbone", f"b={own_model}", "--cache", cache).exit_code == 0
    files = FeatureCache(cache)
    assert files.open("new", "b").fingerprint == files.open("train", "b").fingerprint


def test_new_rows_are_read_as_those_of_their_backbone_and_of_train_before_others(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2, side=16)
    cache, folder = tmp_path / "cache", tmp_path / "data" / "train"
    a, b, c, d = (("--backbone", f"{name}={own_model}", "--cache", cache) for name in "abcd")
    assert extract(tmp_path / "data", *a, "--features", "last", "--views", "2").exit_code == 0
    assert extract(tmp_path / "data", *b, "--features", "last", "--views", "hflip").exit_code == 0
    assert extract(folder, "--split", "another", *b, "--features", "last", "--views", "1").exit_code == 0
    said = (
        f"rows in {cache} were extracted differently: --views hflip in train/b.h5; --views 1 in another/b.h5; "
        "--views 2 in train/a.h5. New rows are as the first of these (others: --views)"
    )
    assert said in " ".join(extract(tmp_path / "data", *b, "--features", "mid").output.split())
    assert FeatureCache(cache).open("train", "b.mid").recipe.views == ("identity", "hflip")
    assert "extracted differently" not in extract(tmp_path / "data", *c, "--views", "1").output
    (cache / "another" / "a.h5").write_bytes(b"")
    assert extract(tmp_path / "data", *d).exit_code == 0
    assert FeatureCache(cache).open("train", "d").recipe.views == ("identity", "random1")
    assert "another/a.h5 is damaged" in " ".join(extract(tmp_path / "data", *a, "--features", "mid").output.split())


@pytest.mark.parametrize(
    ("of", "remedy"),
    [
        ("a.h5 1, a.mid.h5 2", "; or run --features last and --features mid in commands of their own"),
        ("a.h5 1, a.384.h5 2", "; or run --sizes native and --sizes 384 in commands of their own"),
        ("a.h5 1, a.mid.h5 1, b.h5 2", "; or run backbones that differ in commands of their own"),
        ("a.h5 1, a.mid.h5 2, b.h5 2, b.mid.h5 1", "; or run one backbone, one of --sizes and one of --features a"),
        ("train/a.h5 1, test/a.h5 2", " are extracted again and replaced."),
    ],
)
def test_the_remedy_for_rows_extracted_differently_tells_them_apart(of, remedy):
    ways = {}
    for name, views in (file.split() for file in of.split(", ")):
        ways.setdefault(f"--views {views}", []).append(Path(name))
    assert remedy in f" are extracted again and replaced{_way_apart(ways)}."


def test_each_kind_of_features_keeps_its_layers_unless_others_are_named(tmp_path):
    keras = import_keras()
    layers = keras.layers
    image = keras.Input((16, 16, 3))
    maps = image
    for name in "abcd":
        maps = layers.Conv2D(4, 3, 1 if name == "b" else 2, "same", name=name)(maps)
    keras.Model(image, layers.Dense(3, name="end")(layers.GlobalAveragePooling2D()(maps))).save(tmp_path / "m.keras")
    write_images(tmp_path / "data" / "train", 2, side=16)
    arguments = (tmp_path / "data", "--backbone", f"m={tmp_path / 'm.keras'}", "--cache", tmp_path / "cache")

    def made(*options):
        result = extract(*arguments, *options)
        assert result.exit_code == 0, result.output
        files = FeatureCache(tmp_path / "cache")
        return " ".join(result.output.split()), [files.open("train", name).recipe.layer for name in ("m", "m.mid")]

    assert extract(*arguments, "--features", "mid", "--taps", "a,c").exit_code == 0
    assert made("--layer", "d")[1] == ["d", "a,c"]
    said, found = made("--taps", "b,c")
    assert found == ["d", "b,c"]
    assert "features of m: of its layer d, as in" in said
    assert "nothing left to do: all 4 rows are up to date" in made()[0]
    assert made("--layer", "end")[1] == ["end", "b,c"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--views 0", "--views '0': expected a number"),
        ("--views two", "--views 'two': expected a number"),
        ("--ranges x", "--ranges 'x': 'x' is not NAME=VALUE"),
        ("--ranges=", "--ranges '': '' is not NAME=VALUE"),
        ("--views hflip --ranges rotate=9", "--ranges rotate=9: only random views have ranges"),
        ("--range 9,5", "--range '9,5': expected two values"),
        ("--range=", "--range '': expected two values"),
        ("--sizes 9", "--sizes '9': '9' is neither native nor"),
        (
            "--sizes 32 --backbones efficientnet_lite0",
            "32 is too small for efficientnet_lite0, whose smallest size is 33",
        ),
        ("--sizes native,64 --backbones vgg16,xception", "64 is too small for xception, whose smallest size is 71."),
        ("--backbones vgg16.384", "without its ending: vgg16. extract run makes such rows with --sizes 384"),
        ("--features x", "--features 'x': x is not a kind of features"),
        ("--taps a,b", "--taps a,b is of one model"),
        ("--pooling cls", "--pooling cls is of one model"),
        ("--backbone own=own.keras --taps re_lu", "--taps re_lu: expected two layers of the model, A,B; received 1"),
        ("--backbone own=own.keras --taps a,b,c", "--taps a,b,c: expected two layers of the model, A,B; received 3"),
        ("--backbone own=own.keras --taps b,b", "--taps 'b,b': expected different names between commas"),
        ("--backbone own=own.keras --taps=", "--taps '': expected different names between commas"),
    ],
)
def test_options_that_cannot_be_right_are_refused_before_images_are_looked_for(tmp_path, options, said):
    result = extract(tmp_path / "none", "--cache", tmp_path / "cache", *options.split())
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
    assert not (tmp_path / "cache").exists()


def test_a_run_that_is_refused_or_stopped_leaves_the_notes_of_rows_that_are_there(tmp_path, own_model, monkeypatch):
    write_images(tmp_path / "data" / "train", 2, side=16)
    cache = tmp_path / "cache"
    arguments = (tmp_path / "data", "--backbone", f"own={own_model}", "--features", "last", "--cache", cache)
    assert extract(*arguments).exit_code == 0
    note = cache / "train" / "own.source.json"
    before = note.read_text()

    def refuse(*_):
        raise InputError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr("extract.extraction.CompiledBackbones.__call__", refuse)
        assert extract(*arguments, "--views", "8").exit_code == 2
    assert note.read_text() == before
    assert extract(*arguments, "--views", "2").exit_code == 0
    assert '"views": "[\\"identity\\", \\"random1\\"]"' in note.read_text()


def test_an_engine_that_cannot_be_is_refused_before_anything_is_noted(tmp_path):
    write_images(tmp_path / "data" / "train", 1)
    options = ("--backbones", "efficientnet_lite0", "--engine", "openvino", "--precision", "mixed")
    result = extract(tmp_path / "data", *options, "--cache", tmp_path / "cache")
    assert result.exit_code == 2
    assert "--engine openvino: it computes in float32, not in --precision mixed" in " ".join(result.output.split())
    assert not (tmp_path / "cache").exists()


def test_blanks_around_taps_do_not_matter(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2, side=16)
    arguments = (tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "cache", "--taps")
    assert extract(*arguments, "rescaling, re_lu").exit_code == 0
    assert FeatureCache(tmp_path / "cache").open("train", "own.mid").recipe.layer == "rescaling,re_lu"
    assert "nothing left to do: all 4 rows are up to date" in extract(*arguments, "rescaling,re_lu").output


@pytest.mark.parametrize("own", [True, False])
def test_with_nothing_to_do_no_keras_is_loaded(tmp_path, own_model, own):
    write_images(tmp_path / "data" / "train", 2, side=16)
    backbones = ("--backbone", f"own={own_model}") if own else ("--backbones", "efficientnet_lite0")
    arguments = (tmp_path / "data", *backbones, "--cache", tmp_path / "cache")
    assert extract(*arguments).exit_code == 0
    done, loaded = packages_loaded(RUN, "extract", "run", *map(str, arguments))
    assert "nothing left to do: all 4 rows are up to date" in done.stdout, done.stderr
    assert loaded & {*HEAVY, "pandas", "sklearn"} == set()


def test_a_changed_model_of_ones_own_is_noticed(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2, side=16)
    model, cache = tmp_path / "own.keras", tmp_path / "cache"
    arguments = (tmp_path / "data", "--backbone", f"own={model}", "--cache", cache)
    shutil.copy(own_model, model)
    assert extract(*arguments).exit_code == 0
    keras = import_keras()
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]).save(model)
    again = extract(*arguments)
    assert "own.h5 was extracted differently" in again.output
    assert FeatureCache(cache).open("train", "own").recipe.input_size == 8


def test_rejected_images_are_listed_and_the_exit_code_is_3(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 3, side=16)
    (tmp_path / "data" / "train" / "a001.png").write_bytes(b"\x89PNG broken")
    cache = tmp_path / "cache"
    result = extract(tmp_path / "data", "--backbone", f"own={own_model}", "--cache", cache)
    assert result.exit_code == 3
    assert "1 image could not be read (first: train/a001.png: the PNG file is damaged" in result.output
    with (cache / "rejected.csv").open() as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["a001"]
    assert FeatureCache(cache).read("train", ["own"])[0] == ("a000", "a002")


def test_without_a_name_the_challenges_five_are_asked_for_and_the_embedded_ones_offered(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    write_images(tmp_path / "data" / "train", 1)
    failing = {**BACKBONES}
    for name in CHALLENGE:  # nothing listens on port 1: no test may depend on the network
        row = BACKBONES[name]
        failing[name] = type(row)(**{**vars(row), "weights_url": f"http://127.0.0.1:1/headbank_test_{name}.h5"})
    monkeypatch.setattr("extract.backbones.table.BACKBONES", failing)
    result = extract(tmp_path / "data", "--cache", tmp_path / "cache")
    assert result.exit_code == 2
    assert "the ImageNet weights of xception could not be downloaded" in result.output
    assert f"headbank_test_xception.h5 (MD5 {BACKBONES['xception'].weights_hash})" in result.output
    assert "--backbones efficientnet_lite0,efficientnet_lite1,efficientnet_lite2" in result.output
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backbones", "resnet"], "no backbone is called 'resnet'"),
        (["--backbones", ""], "--backbones '': expected different names between commas"),
        (["--backbones", "vgg16,vgg16"], "--backbones 'vgg16,vgg16': expected different names"),
        (["--precision", "half"], "Invalid value for '--precision'"),
        (["--dtype", "int8"], "Invalid value for '--dtype'"),
        (["--weights", "nowhere"], "--weights takes imagenet, random, or a folder"),
        (["--weights-dir", "nowhere"], "--weights-dir nowhere is not a folder"),
        (["--backbone", "x=nowhere.keras"], "nowhere.keras is not a .keras or .onnx file, or is missing"),
        (["--batch-size", "0"], "Invalid value for '--batch-size'"),
        (["--id-column", "name"], "--id-column"),
    ],
)
def test_bad_options_get_one_message_and_exit_code_2(tmp_path, arguments, message):
    write_images(tmp_path / "data" / "train", 1)
    result = extract(tmp_path / "data", "--cache", tmp_path / "cache", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "cache").exists()


def test_data_that_is_not_there_and_a_cache_that_is_a_file(tmp_path, own_model):
    result = extract(tmp_path / "nowhere", "--backbone", f"own={own_model}")
    assert result.exit_code == 2
    assert str(tmp_path / "nowhere") in result.output
    write_images(tmp_path / "data" / "train", 1, side=16)
    (tmp_path / "cache").write_text("a file")
    result = extract(tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "cache")
    assert result.exit_code == 2
    assert str(tmp_path / "cache") in result.output


def test_the_list_is_the_table():
    result = CliRunner().invoke(app, ["list"])
    assert result.exit_code == 0
    lines = {line.split()[0]: line for line in result.output.splitlines()[1:]}
    assert list(lines) == list(BACKBONES)
    for row in BACKBONES.values():
        assert f" {row.input_size} " in lines[row.name]
        assert f" {row.width} " in lines[row.name]
        assert f"{row.parameters / 1e6:.1f} M" in lines[row.name]
        assert row.licence in lines[row.name]
    assert lines["efficientnet_lite0"].rstrip().endswith("present")


def test_the_list_finds_weights_in_weights_dir(tmp_path):
    Path(tmp_path / BACKBONES["nasnetmobile"].weights_name).write_bytes(b"")
    result = CliRunner().invoke(app, ["list", "--weights-dir", str(tmp_path)])
    present = [line.split()[0] for line in result.output.splitlines() if line.rstrip().endswith(" present")]
    assert "nasnetmobile" in present


def test_a_model_of_ones_own_is_not_said_to_run_in_mixed_precision(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 1, side=16)
    result = extract(tmp_path / "data", "--backbone", f"own={own_model}", "--precision", "mixed")
    assert result.exit_code == 2
    assert "--precision mixed is for the backbones of the table" in result.output


def test_brackets_in_a_path_are_no_markup(tmp_path, own_model):
    data = tmp_path / "my [red]data[/b] :smile:"
    write_images(data / "train", 2, side=16)
    (data / "train" / "a001.png").write_bytes(b"")
    result = extract(data, "--backbone", f"own={own_model}", "--cache", tmp_path / "[bold]cache")
    assert result.exit_code == 3
    assert f"2 train images of {data} through own, into {tmp_path / '[bold]cache'}" in result.output


def test_keras_json_that_says_channels_first_changes_nothing(tmp_path, own_model):
    keras = import_keras()
    write_images(tmp_path / "data" / "train", 2, side=16)
    extract(tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "first")
    keras.config.set_image_data_format("channels_first")
    try:
        extract(tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "second")
    finally:
        keras.config.set_image_data_format("channels_last")
    first, second = (FeatureCache(tmp_path / name).read("train", ["own"])[1] for name in ("first", "second"))
    assert first.shape == (2, 4)
    np.testing.assert_array_equal(first, second)


def test_a_folder_of_images_can_be_a_split_of_its_own(tmp_path):
    images, cache = tmp_path / "images", tmp_path / "cache"
    write_images(images, 3)
    options = ("--backbones", "efficientnet_lite0", "--weights", "random", "--cache", cache)
    assert extract(images, "--split", "clinic", *options).exit_code == 0
    image_ids, _ = FeatureCache(cache).read("clinic", ["efficientnet_lite0"])
    assert list(image_ids) == sorted(path.stem for path in images.iterdir())
    for arguments, message in (
        ((images, "--split", "../x", *options), "--split '../x': a name is made of letters"),
        ((images, "--split", "clinic", "--id-column", "ID", *options), "--id-column is about a table"),
        ((images, "--split", "clinic", "--missing", "skip", *options), "--missing is about a table"),
        ((images, "--split", "clinic", *options[:-2]), "--split reads a folder that is not a data set"),
        ((tmp_path / "none", "--split", "clinic", *options), "none is not a folder"),
    ):
        result = extract(*arguments)
        assert (result.exit_code, message in " ".join(result.output.split())) == (2, True), result.output


def test_plain_images_beside_scans_and_values_that_wrapped_around_are_counted(tmp_path, own_model):
    data, options = tmp_path / "data", ("--backbone", f"own={own_model}", "--window", "bone")
    (data / "train").mkdir(parents=True)
    hu = np.linspace(-1000, 1000, 400).reshape(20, 20).astype(np.int16)
    for name, stored in (("a", hu + 1024), ("b", hu % 4096), ("c", hu % 4096)):
        made = dataset(stored.astype(np.uint16), bits=12, RescaleSlope=1, RescaleIntercept=-1024 if name == "a" else 0)
        (data / "train" / f"{name}.dcm").write_bytes(file_bytes(made))
    cv2.imwrite(str(data / "train" / "x.png"), np.eye(20, dtype=np.uint8) * 255)
    plain = f"1 of 4 images are plain (first: {data / 'train' / 'x.png'}), not scans: the window bone does not apply"
    wrapped = (
        "warning: 2 of 4 images are CT of 12 bits without an offset, whose air had wrapped around to 3072 and more ("
    )
    for _ in range(2):  # nothing is decoded the second time
        result = extract(data, *options, "--cache", tmp_path / "cache")
        assert result.exit_code == 0
        assert plain in result.output
        assert wrapped + "first: train/b)" in result.output
    result = CliRunner().invoke(app, ["convert", str(data), str(tmp_path / "out"), "--window", "bone"])
    assert wrapped + "first: train/b)" in result.output


def test_features_of_dicom_are_those_of_png_within_what_a_grey_level_does(tmp_path, own_model):
    for image_format, window in (("png", ()), ("dicom", ("--window", "brain")), ("dicom", ("--window", "bone"))):
        if not (tmp_path / image_format).exists():
            write_phantom(tmp_path / image_format, {"train": 6, "test": 0}, 64, 4, 1, image_format)
        cache = tmp_path / f"{image_format}{len(window) and window[1]}"
        assert (
            extract(tmp_path / image_format, "--backbone", f"own={own_model}", "--cache", cache, *window).exit_code == 0
        )
    features = {
        name: FeatureCache(tmp_path / name).read("train", ["own"])[1] for name in ("png0", "dicombrain", "dicombone")
    }
    # ReLU and means change by no more than their inputs, a convolution by no more than the sum of its weights.
    kernel = import_keras().models.load_model(own_model).layers[1].kernel
    of_a_level = np.abs(np.asarray(kernel)).sum(axis=(0, 1, 2)) / 255
    changes = np.abs(features["dicombrain"] - features["png0"]).max(axis=0)
    assert changes.max() > 0  # slices are rounded to a tenth of a HU
    assert (changes <= of_a_level).all()
    assert (np.abs(features["dicombone"] - features["png0"]).max(axis=0) > 2 * of_a_level).any()


@pytest.mark.parametrize("package", ["gdcm", "jpeg_ls", "openjpeg", "rle", "nibabel", "_pi_heif"])
def test_a_decoder_that_does_not_load_is_one_message(tmp_path, own_model, monkeypatch, package):
    volume = nibabel.nifti1.Nifti1Image(np.zeros((4, 5, 1), np.int16), np.eye(4)).to_bytes()
    files = {"nibabel": ("a.nii", volume), "_pi_heif": ("a.heic", UPRIGHT)}
    name, content = files.get(package, ("a.dcm", file_bytes(dataset(slice_of_hu()))))
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / name).write_bytes(content)
    monkeypatch.setattr(dicom, "_prepare_once", dicom._prepare_once.__wrapped__)  # as if it had not run yet
    for module in [module for module in sys.modules if module.partition(".")[0] == package] or [package]:
        monkeypatch.setitem(sys.modules, module, None)
    result = extract(tmp_path / "data", "--backbone", f"own={own_model}", "--window", "bone", "--cache", tmp_path / "c")
    assert result.exit_code == 2
    assert f"the package {package} cannot be loaded: " in result.output
    assert result.output.rstrip().endswith("Run: scripts/setup.sh")
    assert "Traceback" not in result.output


def test_the_range_of_16_bit_images_is_that_of_train_is_said_and_stays(tmp_path, own_model):
    random = np.random.default_rng(0)
    data, options = tmp_path / "data", ("--backbone", f"own={own_model}", "--cache", tmp_path / "cache")
    for split, low, count in (("train", 31_744, 3), ("test", 20_000, 1)):
        (data / split).mkdir(parents=True)
        for number in range(count):
            image = random.integers(low, low + 100, (20, 20), np.uint16)
            image[0], image[1] = low, low + 99
            cv2.imwrite(str(data / split / f"a{number}.png"), image)
    result = extract(data, *options)
    assert result.exit_code == 0
    assert "3 images of train have 16 bits: their values 31744 to 31843 become black to white" in result.output
    assert "warning: 1 of 4 images are blank or nearly so (first: test/a0)" in result.output  # all below the range
    cache = FeatureCache(tmp_path / "cache")
    assert {cache.open(split, "own").recipe.intensity_range for split in cache.splits()} == {"31744,31843"}
    assert cache.remedy("own").count("--range 31744,31843") == 1
    cv2.imwrite(str(data / "train" / "new.png"), np.full((20, 20), 65_535, np.uint16))
    result = extract(data, *options)
    assert f"16-bit images: values 31744 to 31843 become black to white, as in {cache.root}" in result.output
    assert "2 rows extracted" in result.output
    result = extract(data, *options, "--range", "0,65535")
    assert "was extracted differently (intensity_range 31744,31843 -> 0,65535)" in result.output


def test_a_cache_stays_as_it_was_made_where_tags_of_orientation_are_not_followed(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2)
    options = (tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "cache")
    assert extract(*options, "--orientation", "stored").exit_code == 0
    result = extract(*options)
    assert "tags of orientation are not followed but in TIFF files, as in" in result.output
    assert "nothing left to do: all 4 rows are up to date" in result.output
    assert "was extracted differently (orientation stored -> exif)" in extract(*options, "--orientation", "exif").output
    assert "nothing left to do: all 4 rows are up to date" in extract(*options).output


def test_a_fit_is_kept_by_the_cache_and_given_back_by_its_options(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 2)
    cv2.imwrite(str(tmp_path / "data" / "train" / "wide.png"), np.full((20, 50), 200, np.uint8))
    options = (tmp_path / "data", "--backbone", f"own={own_model}", "--cache", tmp_path / "cache")
    assert extract(*options).exit_code == 0
    cache = FeatureCache(tmp_path / "cache")
    squashed = cache.read("train", ["own"])[1]
    assert "was extracted differently (preprocessing" in extract(*options, "--fit", "pad").output
    result = extract(*options)
    assert f"images are made square by --fit pad, as in {cache.root}" in result.output
    assert "nothing left to do: all 6 rows are up to date" in result.output
    assert FeatureCache(cache.root).remedy("own").count("--fit pad") == 1
    padded = FeatureCache(cache.root).read("train", ["own"])[1]
    np.testing.assert_array_equal(squashed[:2], padded[:2])  # squares
    assert abs(squashed[2] - padded[2]).max() > 1e-3
    assert "fit pad -> squash" in extract(*options, "--fit", "squash").output
