"""The recipe of a cached row: every setting that decides its values, their fingerprint, and the options for them."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from features.common.files import digest

SCHEMA_VERSION = 2
#: The window of a recipe that reads no scans.
NO_WINDOW = "none"
#: How the files of models of one's own end: of Keras, and of ONNX.
OWN_MODELS = (".keras", ".onnx")
#: Weights that `--weights` names by a word; all others are files.
NAMED_WEIGHTS = ("imagenet", "random")
#: The view of an image as it is.
IDENTITY = "identity"
#: What one pass of a backbone gives, by the names that `--features` takes, and how the names of its rows end: the
#: average of the last map; and mid-level features, of two maps before it.
FEATURES = {"last": "", "mid": ".mid"}
#: What stage 2 makes of several views of an image: the mean of their features, or the first view alone.
TTA = ("mean", "none")
#: What is added in words where heads learn from all views.
ALL_VIEWS = "; heads learn from all"
#: How the maps of mid-level features become numbers: average, maximum, standard deviation over their positions.
MID_POOLING = "avg,max,std"
#: How tokens become numbers: the one of the class, the mean of those of the image, or both side by side.
TOKEN_POOLINGS = ("cls", "mean", "cls+mean")


@dataclass(frozen=True)
class Recipe:
    """How pixels become features, as kept in the attributes of a cache file.

    Device, Keras version, Keras backend and time are kept beside it but not in it: they move the values by
    rounding only, and features made on a GPU must go with features made later on a laptop.

    Attributes:
        backbone: name of the rows: that of the backbone, and an ending of `FEATURES`.
        weights: where the weights came from, for people: `imagenet`, `random`, or a path. Not fingerprinted.
        weights_digest: BLAKE2b-128 of the weights' file, as hexadecimal digits.
        preprocessing: what happens to the decoded pixels before the backbone, in words.
        input_size: height and width of the backbone's input, in pixels.
        pooling: how feature maps become a vector: `avg` the last one, `MID_POOLING` those of two layers; how tokens do,
            of `TOKEN_POOLINGS`; or `model` where the model itself pools.
        views: names of the views along the second axis of `features`.
        precision: arithmetic of the backbone, `float32` or `mixed`.
        storage: dtype of the stored features, `float32` or `float16`.
        fit: how an image gets the square shape of the input: `squash`, `pad` or `crop`.
        intensity_range: the stored values of 16-bit images that become black and white, `LOW,HIGH`.
        orientation: `exif` where tags turn images upright, `stored` where only those of TIFF files do.
        window: the intensity window of scans; `none` for plain images.
        layer: the layer that gives the features, "" for the last one; of mid-level features its two, `A,B`.
        ranges: how far random views may be from the plain one, in words; "" where there are none.
        interpolation: how images get their size, `bilinear` or `bicubic`.
        tuned: of a fine-tuned backbone the digest of `features.folds.tuning.Tuning`, which says what it has seen.
        schema_version: version of the cache's layout.
    """

    backbone: str
    weights: str
    weights_digest: str
    preprocessing: str
    input_size: int
    pooling: str = "avg"
    views: tuple[str, ...] = (IDENTITY,)
    precision: str = "float32"
    storage: str = "float32"
    fit: str = "squash"
    intensity_range: str = "0,65535"
    orientation: str = "stored"
    window: str = NO_WINDOW
    layer: str = ""
    ranges: str = ""
    interpolation: str = "bilinear"
    tuned: str = ""
    schema_version: int = SCHEMA_VERSION

    @property
    def fingerprint(self) -> str:
        """BLAKE2b-128, as 32 hexadecimal digits, of all fields that change the values.

        Fields that early caches do not have count where they differ from what those did, so that these stay valid.
        """
        settings = asdict(self)
        del settings["weights"]  # they may lie elsewhere; their digest speaks for them
        settings["dicom_window"] = settings.pop("window")  # as early caches call it
        for name in _LATER_FIELDS:
            if settings[name] == _DEFAULTS[name]:
                del settings[name]
        return digest(json.dumps(settings, sort_keys=True).encode()).hex()

    def attributes(self) -> dict[str, str | int]:
        """The fields as HDF5 attributes: strings and integers; views as a JSON list."""
        return {**asdict(self), "views": json.dumps(self.views)}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str | int | float]) -> "Recipe":
        """Read a recipe back from what `attributes` returned, among other attributes."""
        return cls.from_record({**attributes, "views": json.loads(str(attributes["views"]))})

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "Recipe":
        """Read a recipe back from JSON, as a run keeps it: `asdict` of a recipe, with views as a list.

        Fields that early records do not have are at their default, which is what was done then.
        """
        found = {**_DEFAULTS, **record, "views": tuple(record["views"])}
        return cls(**{field.name: found[field.name] for field in fields(cls)})

    @property
    def features(self) -> str:
        """Which of `FEATURES` these are."""
        return "mid" if self.pooling == MID_POOLING else "last"

    @property
    def pooling_option(self) -> str:
        """What `--pooling` takes for the same features; "" where it is left out. Of .onnx files the sidecar says it."""
        return self.pooling if self.pooling in TOKEN_POOLINGS and self.weights.endswith(".keras") else ""

    def describe_views(self, tta: str, augment: bool = False) -> str:
        """Say what stage 2 reads of the views, by `TTA`: `1`, `mean of 8`, `first of 8`; heads may learn from all."""
        count = len(self.views)
        if count == 1:
            return "1"
        return f"{'mean' if tta == 'mean' else 'first'} of {count}" + (ALL_VIEWS if augment else "")

    @property
    def can_be_asked_for(self) -> bool:
        """Whether options make such rows: a model of one's own has one size, and its mid-level features known layers.

        The rows of an .onnx file are never mid-level, and those of a .keras file name their layers.
        """
        return not self.is_own_model or (not size_of(self.backbone) and (self.features == "last" or bool(self.layer)))

    def as_read(self, tta: str) -> "Recipe":
        """The recipe of what stage 2 reads of several views, by `TTA`: by `none` that of the plain one alone."""
        return self if tta == "mean" else replace(self, views=self.views[:1], ranges="")

    @property
    def is_own_model(self) -> bool:
        """Whether the backbone is a user's own model: `weights` is then its file, and holds the architecture too."""
        return self.weights.endswith(OWN_MODELS)

    @property
    def weights_option(self) -> str:
        """What `--weights` takes to find the same weights again: `imagenet`, `random`, or the folder of their file."""
        return self.weights if self.weights in NAMED_WEIGHTS else str(Path(self.weights).parent)

    @property
    def reading_options(self) -> dict[str, str]:
        """The options by which images are read as these were, but for the window; `ranges` where views are random."""
        views = self.views
        return {
            # Two views are named by the second one, unless that is random.
            "views": str(len(views)) if len(views) != 2 or views[1].startswith("random") else views[1],
            **({"ranges": self.ranges} if self.ranges else {}),
            "range": self.intensity_range,
            "fit": self.fit,
            "orientation": self.orientation,
        }

    def of_other_rows(self, name: str) -> "Recipe":
        """The recipe of other rows of the same backbone, such as `resnet50.384.mid`, as far as options say it."""
        other = replace(self, backbone=name, input_size=int(size_of(name) or self.input_size))
        kind = features_of(name)
        if kind == self.features:
            return other
        return replace(other, pooling=MID_POOLING if kind == "mid" else "avg", layer="")

    def differences(self, other: "Recipe") -> str:
        """Say in words in which fields two recipes differ: `weights imagenet -> random, precision ...`."""
        mine, theirs = asdict(self), asdict(other)
        differing = [name for name in mine if mine[name] != theirs[name]]
        return ", ".join(f"{name} {mine[name]} -> {theirs[name]}" for name in differing) or "nothing"


#: Fields that caches made before they existed do not have, but for `window`, whose name was another one.
_LATER_FIELDS = ("fit", "intensity_range", "orientation", "layer", "ranges", "interpolation", "tuned")
#: The options that name the layers of a user's own model.
_OF_LAYER = {"last": "--layer", "mid": "--taps"}
#: How the names of rows end.
_NAME = re.compile(r"(\.(?:(?P<size>\d+)|native))?(?:\.(mid|last))?$")
_DEFAULTS = {field.name: field.default for field in fields(Recipe) if field.name in (*_LATER_FIELDS, "window")}


def backbone_of(name: str) -> str:
    """Tell the backbone of a name, such as `resnet50` of `resnet50.384.mid`, `resnet50.native` or `resnet50.last`."""
    return _NAME.sub("", name)


def size_name(name: str) -> str:
    """Name one input size of a backbone by the name of its pass: `resnet50.native` of `resnet50`, or `resnet50.384`."""
    return f"{name}.native" if name == backbone_of(name) else name


def size_of(name: str) -> str:
    """Tell the input size in the name of rows, such as `384` of `resnet50.384.mid`; "" where it is the native one."""
    found = _NAME.search(name)
    return found["size"] or "" if found else ""


def row_and_kind(name: str) -> tuple[str, str]:
    """Tell the rows of a name as their file is called, and which of `FEATURES` the name says, "" where it says none.

    Such as `resnet50.mid` and `mid` of `resnet50.native.mid`, or `resnet50` and `last` of `resnet50.last`.
    """
    size, kind = size_of(name), name.rpartition(".")[2]
    kind = kind if kind in FEATURES else ""
    return f"{backbone_of(name)}{size and '.'}{size}{FEATURES[kind or 'last']}", kind


def ending_options(name: str) -> dict[str, str | None]:
    """Tell the options of `python -m extract run` that the ending of a name stands for; None for those not in it."""
    found = _NAME.search(name)
    assert found is not None  # the ending may be empty
    return {"features": found[3], "sizes": found[1] and found[1][1:]}


def features_of(name: str) -> str:
    """Tell which of `FEATURES` the rows of a name are, such as `mid` of `resnet50.384.mid`."""
    return next(kind for kind, ending in reversed(FEATURES.items()) if name.endswith(ending))


def group_passes(recipes: Mapping[str, Recipe]) -> list[tuple[str, dict[str, Recipe]]]:
    """Group the recipes of rows, by name, into passes: what a backbone is called, and its rows by kind of features."""
    passes: dict[tuple[str, Recipe], dict[str, Recipe]] = {}
    for name, recipe in recipes.items():
        backbone = name.removesuffix(FEATURES[recipe.features])
        passes.setdefault((backbone, replace(recipe, backbone="", pooling="", layer="")), {})[recipe.features] = recipe
    return [
        (backbone, {kind: rows[kind] for kind in FEATURES if kind in rows}) for (backbone, _), rows in passes.items()
    ]


def extract_options(recipes: Mapping[str, Recipe]) -> list[list[str]]:
    """List the options with which `python -m extract run` makes features of given recipes, by backbone.

    Backbones of the table that share their options share a run. Weights that do not come with Keras are looked for
    where they were.
    """
    of_table: dict[tuple[str, ...], list[str]] = {}
    own = []
    for backbone, rows in group_passes(recipes):
        recipe = next(iter(rows.values()))
        arithmetic = ("--precision", recipe.precision, "--dtype", recipe.storage)
        window = () if recipe.window == NO_WINDOW else ("--window", recipe.window)
        reading = chain.from_iterable((f"--{name}", value) for name, value in recipe.reading_options.items())
        kinds = (
            ()
            if rows.keys() == FEATURES.keys()
            else ("--features", ",".join(kind for kind in FEATURES if kind in rows))
        )
        sizes = ("--sizes", size_of(backbone)) if size_of(backbone) else ()
        settings = (*kinds, *sizes, *arithmetic, *reading, *window)
        if recipe.is_own_model:
            layers = [(_OF_LAYER[kind], row.layer) for kind, row in rows.items() if row.layer]
            layers += [("--pooling", row.pooling_option) for row in rows.values() if row.pooling_option]
            own.append(["--backbone", f"{backbone}={recipe.weights}", *chain.from_iterable(layers), *settings])
        else:
            of_table.setdefault(("--weights", recipe.weights_option, *settings), []).append(backbone_of(backbone))
    return [["--backbones", ",".join(names), *options] for options, names in of_table.items()] + own
