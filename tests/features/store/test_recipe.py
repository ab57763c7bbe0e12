"""The recipe: what moves the fingerprint, and what is read back."""

import json
from dataclasses import asdict, fields, replace

import pytest

from features.store.recipe import Recipe, extract_options, row_and_kind
from tests.features.store.caches import RECIPE

CHANGED = {
    "backbone": "other",
    "weights_digest": "cd" * 16,
    "preprocessing": "pixel / 255",
    "input_size": 299,
    "pooling": "model",
    "views": ("identity", "flip"),
    "precision": "mixed",
    "storage": "float16",
    "fit": "pad",
    "intensity_range": "31744,35839",
    "orientation": "exif",
    "window": "40/80",
    "layer": "avg_pool",
    "ranges": "rotate=15",
    "interpolation": "bicubic",
    "tuned": "ab" * 16,
    "schema_version": 3,
}


@pytest.mark.parametrize("field", CHANGED)
def test_every_setting_that_decides_values_moves_the_fingerprint(field):
    changed = replace(RECIPE, **{field: CHANGED[field]})
    assert changed.fingerprint != RECIPE.fingerprint
    assert RECIPE.differences(changed) == f"{field} {getattr(RECIPE, field)} -> {getattr(changed, field)}"


def test_the_list_of_settings_above_is_complete():
    assert {field.name for field in fields(Recipe)} == {*CHANGED, "weights"}


def test_where_weights_came_from_leaves_the_fingerprint_alone():
    assert replace(RECIPE, weights="/somewhere/else.h5").fingerprint == RECIPE.fingerprint


def test_the_fingerprint_is_the_same_in_every_release():
    # Computed once: another value would make every cache in the world stale.
    assert RECIPE.fingerprint == "8b8d4319b53a72c75d726d93030f8757"


def test_what_was_kept_before_a_field_existed_is_read_as_what_was_done_then():
    early = {**asdict(RECIPE), "dicom_window": "none", "views": ["identity"]}
    for name in ("fit", "intensity_range", "orientation", "window"):
        del early[name]
    assert Recipe.from_record(early) == RECIPE
    assert Recipe.from_attributes({**early, "views": '["identity"]', "device": "CPU"}) == RECIPE


def test_attributes_are_strings_and_integers_and_read_back_equal():
    recipe = replace(RECIPE, views=("identity", "Spiegelung ä"), weights="/data/[1]/größe.h5")
    attributes = recipe.attributes()
    assert {type(value) for value in attributes.values()} == {str, int}
    assert Recipe.from_attributes({**attributes, "device": "CPU"}) == recipe


def test_json_gives_the_recipe_back():
    recipe = replace(RECIPE, views=("identity", "flip"))
    assert Recipe.from_record(json.loads(json.dumps(asdict(recipe)))) == recipe


def test_options_are_those_of_one_run_for_each_way_to_extract():
    recipes = {
        "alpha": RECIPE,
        "beta": replace(RECIPE, backbone="beta"),
        "half": replace(RECIPE, precision="mixed", storage="float16"),
        "tuned": replace(RECIPE, weights="my weights/tuned.weights.h5"),
        "mine": replace(RECIPE, weights="my models/mine.keras"),
        "deep": replace(RECIPE, intensity_range="31744,35839", fit="pad"),
    }
    float32 = ["--precision", "float32", "--dtype", "float32"]
    last = ["--features", "last"]
    full = ["--views", "1", "--range", "0,65535", "--fit", "squash", "--orientation", "stored"]
    deep = ["--views", "1", "--range", "31744,35839", "--fit", "pad", "--orientation", "stored"]
    half = ["--precision", "mixed", "--dtype", "float16"]
    assert extract_options(recipes) == [
        ["--backbones", "alpha,beta", "--weights", "imagenet", *last, *float32, *full],
        ["--backbones", "half", "--weights", "imagenet", *last, *half, *full],
        ["--backbones", "tuned", "--weights", "my weights", *last, *float32, *full],
        ["--backbones", "deep", "--weights", "imagenet", *last, *float32, *deep],
        ["--backbone", "mine=my models/mine.keras", *last, *float32, *full],
    ]


def test_views_and_other_sizes_are_part_of_the_options():
    views = replace(RECIPE, views=("identity", "random1"), ranges="rotate=9")
    mirror = replace(RECIPE, views=("identity", "hflip"), input_size=384)
    float32 = ["--precision", "float32", "--dtype", "float32"]
    options = extract_options({"alpha": views, "beta.384": mirror})
    assert [words[4 : words.index("--range")] for words in options] == [
        ["--features", "last", *float32, "--views", "2", "--ranges", "rotate=9"],
        ["--features", "last", "--sizes", "384", *float32, "--views", "hflip"],
    ]
    assert [words[1] for words in options] == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("name", "row", "kind"),
    [
        ("resnet50", "resnet50", ""),
        ("resnet50.last", "resnet50", "last"),
        ("resnet50.native", "resnet50", ""),
        ("resnet50.native.mid", "resnet50.mid", "mid"),
        ("resnet50.384.last", "resnet50.384", "last"),
        ("my.net.384.mid", "my.net.384.mid", "mid"),
    ],
)
def test_a_name_says_rows_and_their_kind(name, row, kind):
    assert row_and_kind(name) == (row, kind)


def test_rows_of_one_pass_are_one_backbone_of_the_options():
    mid = replace(RECIPE, backbone="alpha.mid", pooling="avg,max,std", layer="a,b")
    own = replace(RECIPE, weights="mine.keras", layer="deep")
    own_mid = replace(mid, weights="mine.keras")
    options = extract_options({"alpha": RECIPE, "alpha.mid": mid, "beta.mid": mid, "mine": own, "mine.mid": own_mid})
    assert [words[: words.index("--precision")] for words in options] == [
        ["--backbones", "alpha", "--weights", "imagenet"],
        ["--backbones", "beta", "--weights", "imagenet", "--features", "mid"],
        ["--backbone", "mine=mine.keras", "--layer", "deep", "--taps", "a,b"],
    ]
