"""What is extracted and how: found in the data, the options and the cache, and said before the work starts."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from extract.backbones.build import FrozenBackbone
from extract.backbones.onnx_model import AnyBackbone, OnnxBackbone
from extract.backbones.own_model import MAX_SIDE, parse_taps
from extract.backbones.table import CHALLENGE, backbone_named
from extract.backbones.weights import Weights, check_name, find_models, find_weights
from extract.engines.table import choose_engine
from extract.images.reading import Ranges, Reading, are_random, name_views, parse_range
from extract.images.survey import TAIL, survey_deep_images
from extract.options import ExtractOptions
from extract.pipeline import Images
from extract.report import show_progress
from extract.runtime import cores, device_name
from extract.scans.windows import HEAD_WINDOW, OWN_WINDOW, WINDOW_CHOICES, doubt_head, parse_windows, window_words
from features.common.cli import choose_names, split_names
from features.common.commands import join_words, option_words
from features.common.errors import InputError
from features.common.text import count_things, first_few
from features.dataset.dataset import read_images
from features.dataset.folder import scan_images
from features.dataset.frames import is_scan_file
from features.folds.tuning import OF_ALL, Tuning, read_member
from features.options import OF_IMAGES, ImageOptions
from features.store.cache import FeatureCache
from features.store.cache_file import CacheFile, DamagedFile
from features.store.images_table import FactsTable
from features.store.recipe import FEATURES, NO_WINDOW, Recipe, backbone_of, features_of, size_of

#: Scans whose headers say whether they are CT of the head; all would take minutes.
_LOOKED_AT = 100


def find_images(
    data: Path, split: str | None, options: ImageOptions, say: Callable[[str], object] | None = None
) -> list[Images]:
    """Find the images of a data set, or of a folder that is one split.

    Args:
        data: the data set; with `split` a folder of images.
        split: name of the split that the folder becomes; None for a data set.
        options: how to read the tables of a data set.
        say: called with what was understood, a line each.

    Raises:
        InputError: the data set has a fault, or the options do not go together.
    """
    if split is None:
        splits = read_images(data, options, say)
        return [Images(name, ids, paths) for name, (ids, paths) in splits.items()]
    check_name("--split", split)
    default = ImageOptions()
    given = [f"--{name.replace('_', '-')}" for name in OF_IMAGES if getattr(options, name) != getattr(default, name)]
    if given:
        raise InputError(f"{given[0]} is about a table, and --split reads a folder without one. Leave it out.")
    if not data.is_dir():
        raise InputError(f"{data} is not a folder. Give the folder that holds the images.")
    found = dict(sorted(scan_images(data).items()))
    return [Images(split, list(found), list(found.values()))]


def choose_window(
    option: str | None, images: Sequence[Images], cache: Path | None, say: Callable[[str], object]
) -> str:
    """Choose the window through which scans are shown, in the words of a recipe; it stays there where there are none.

    Args:
        option: the value of --window; `none` of features that are to go with those of plain images.
        images: those to read.
        cache: the cache that gets their features: the window of the scans in it goes on.
        say: called with what is chosen without an option.

    Raises:
        InputError: the value of --window is not one; or it is missing, and scans are not CT of a head.
    """
    if option not in (None, NO_WINDOW):
        return window_words(parse_windows(option or ""))
    scans = [path for split in images for path in split.paths if is_scan_file(path)]
    if not scans:
        return NO_WINDOW
    if option == NO_WINDOW:
        raise InputError(
            f"{scans[0]} is a scan, and its features would be those of no plain image. Write the scans as plain images "
            "first, through the window that those have: python -m extract convert DATA OUT --window brain"
        )
    kept = _kept_windows(cache, images) if cache is not None and cache.is_dir() else []
    if len(kept) == 1:
        say(f"window: {kept[0]}, as in {cache}")
        return kept[0]
    doubt = f"{cache} has rows of the windows {' and '.join(kept)}" if kept else ""
    doubt = doubt or doubt_head(scans[:: max(1, len(scans) // _LOOKED_AT)])
    if doubt:
        raise InputError(
            f"{doubt}, so an intensity window is needed: --window {WINDOW_CHOICES}. {OWN_WINDOW} is each file's "
            "own, for X-ray, MR and ultrasound."
        )
    say(f"window: {HEAD_WINDOW}, as the scans are CT, and name no body part but the head (others: --window)")
    return HEAD_WINDOW


def say_plain_images(images: Sequence[Images], window: str, say: Callable[[str], object]) -> None:
    """Say it where some images are plain, and scans are shown through a window."""
    paths = [path for split in images for path in split.paths]
    plain = [path for path in paths if not is_scan_file(path)]
    if plain and window != NO_WINDOW:
        count = f"{len(plain):,} of {count_things(len(paths), 'image')}"
        say(f"warning: {count} are plain (first: {plain[0]}), not scans: the window {window} does not apply to them")


def _kept_windows(cache: Path, images: Sequence[Images]) -> list[str]:
    """List the windows of the rows in a cache, each once."""
    files = FeatureCache(cache)
    recipes = [files.open(split.split, name).recipe for split in images for name in files.backbones(split.split)]
    return sorted({recipe.window for recipe in recipes} - {NO_WINDOW})


def choose_backbones(
    options: ExtractOptions, cache: Path, images: Sequence[Images], say: Callable[[str], object]
) -> list[AnyBackbone]:
    """Find the backbones that the options name, with their weights; the images are those to extract into the cache."""
    features = choose_names(options.features, "--features", "a kind of features", FEATURES)
    taps = parse_taps(options.taps)
    given = {"last": options.layer, "mid": ",".join(taps) or None}
    layers = {kind: layer for kind, layer in given.items() if layer is not None}
    pooling = options.pooling or ""
    models = find_models(options.backbone)
    own = [_own_backbone(model, cache, images, features, layers, pooling) for model in models.items()]
    if options.engine != "auto" and any(isinstance(backbone, OnnxBackbone) for backbone in own):
        raise InputError(
            f"--engine {options.engine} is for backbones of Keras: ONNX Runtime runs .onnx files. Leave it out, or run "
            "them in a command of their own."
        )
    if options.engine != "auto":
        choose_engine(options.engine, device_name(), options.precision)
    for backbone in own:
        if "mid" in features and isinstance(backbone, FrozenBackbone) and options.taps is None:
            say(f"understood: {_describe_taps(backbone)}")
        if "last" in features and isinstance(backbone, FrozenBackbone) and backbone.layer and options.layer is None:
            say(f"features of {backbone.name}: of its layer {backbone.layer}, as in {cache} (another: --layer NAME)")
    sizes = choose_sizes(options)
    weights = {name: find_weights(backbone_named(name), options.weights, options.weights_dir) for name in sizes}
    return [
        FrozenBackbone.of_table(backbone_named(name), found, options.precision, features, size)
        for name, found in weights.items()
        for size in sizes[name]
    ] + own


def _own_backbone(
    model: tuple[str, Weights],
    cache: Path,
    images: Sequence[Images],
    features: tuple[str, ...],
    layers: Mapping[str, str],
    pooling: str,
) -> AnyBackbone:
    """Read a model of one's own, by name and file; one of Keras is loaded only if no split has rows of it."""
    name, weights = model
    if weights.path is not None and (found := read_member(weights.path)):
        return _tuned_backbone(name, weights.path, *found, images, features)
    if weights.path is not None and weights.path.suffix == ".onnx":
        settings = (("layer", "last" in layers), ("taps", "mid" in layers), ("pooling", pooling))
        given = [f"--{kind}" for kind, there in settings if there]
        if given or "last" not in features:
            raise InputError(
                f"{given[0] if given else '--features mid'}: {weights.path} is run as a whole, so it gives no other "
                "layers. Leave that out; the sidecar's output and pooling say what the features are."
            )
        return OnnxBackbone.of_model(name, weights)
    paths = [cache / split.split / f"{name}{ending}.h5" for split in images for ending in FEATURES.values()]
    cached = [CacheFile.open(path).recipe for path in paths if path.exists()]
    return FrozenBackbone.of_model(name, weights, features, layers, cached, pooling)


def _tuned_backbone(
    name: str,
    path: Path,
    tuning: Tuning,
    facts: Mapping[str, Any],
    images: Sequence[Images],
    features: tuple[str, ...],
) -> AnyBackbone:
    """Open the fine-tuned backbone that new images are extracted by; refuse it for images that it has learnt from."""
    what = f"--backbone {name}={path}: it was fine-tuned"
    if facts["source"] != OF_ALL:
        raise InputError(f"{what} without {facts['source']}, for the rows of that fold alone. Give {OF_ALL}.keras.")
    if name != tuning.name:
        raise InputError(f"{what}, and its rows are called {tuning.name}. Use --backbone {tuning.name}={path}.")
    if any(split.split == "train" for split in images):
        raise InputError(
            f"{what} on images of a split train, whose features it may not give. Name a folder of new images with "
            "--split, or run extract finetune again, which extracts test, too."
        )
    return FrozenBackbone.of_tuned(name, path, tuning, features)


def _describe_taps(backbone: FrozenBackbone) -> str:
    """Say which layers give the mid-level features of a model of one's own."""
    if not backbone.taps:
        return f"{backbone.name} has no maps of two resolutions at its top level, so it gives no mid-level features"
    return f"mid-level features of {backbone.name}: of its layers {' and '.join(backbone.taps)} (others: --taps A,B)"


def choose_sizes(options: ExtractOptions) -> dict[str, list[int]]:
    """Find the input sizes of each backbone of the table that the options name.

    Raises:
        InputError: there is no such backbone, or a size is too small for it.
    """
    names = split_names(options.backbones, "--backbones") or (() if options.backbone else CHALLENGE)
    sizes = {name: _parse_sizes(options.sizes, backbone_named(name).input_size) for name in names}
    for name, of_backbone in sizes.items():
        if min(of_backbone) < backbone_named(name).smallest:
            raise InputError(
                f"--sizes {options.sizes}: {min(of_backbone)} is too small for {name}, whose smallest size is "
                f"{backbone_named(name).smallest}. Leave it out, or the backbone."
            )
    return sizes


def _parse_sizes(choice: str, native: int) -> list[int]:
    """Read the value of --sizes for a backbone of a native input size: the sizes, each once."""
    sizes = []
    for text in split_names(choice, "--sizes") or ():
        is_number = text.isascii() and text.isdigit() and len(text) < 9
        if text != "native" and not (is_number and 32 <= int(text) <= MAX_SIDE):
            raise InputError(f"--sizes {choice!r}: {text!r} is neither native nor a number from 32 to {MAX_SIDE:,}.")
        sizes.append(native if text == "native" else int(text))
    return list(dict.fromkeys(sizes))


def kept_reading(
    options: ExtractOptions,
    cache: Path,
    backbones: Sequence[AnyBackbone],
    images: Sequence[Images],
    say: Callable[[str], object],
) -> Reading:
    """Find how the images of the rows in the cache were read, or those of other rows; as today where there are none.

    Raises:
        InputError: rows that would be replaced were read in different ways, and no option says which it is to be.
    """
    names = {name for backbone in backbones for name in backbone.rows}
    paths = sorted(path for split in images for path in (cache / split.split).glob("*.h5") if path.stem in names)
    if not paths:
        return _reading_of_others(options, cache, names, say)
    recipes = {path.relative_to(cache): CacheFile.open(path).recipe for path in paths}
    values = _reading_values(options, recipes)
    if differing := [option for option, found in values.items() if len(found) > 1]:
        ways = _group_ways(recipes, differing)
        wanted = " and ".join(f"--{option}" for option in differing)
        raise InputError(
            f"{cache} has rows of these backbones that were extracted differently: {_describe_ways(ways)}. Give "
            f"{wanted}, and rows extracted otherwise are extracted again and replaced{_way_apart(ways)}."
        )
    return replace(Reading.of(next(iter(recipes.values()))), ranges="".join(values.get("ranges", ())))


def _reading_of_others(options: ExtractOptions, cache: Path, names: Set[str], say: Callable[[str], object]) -> Reading:
    """Find how the images of the rows next to rows of these names were read; where others differ, it is said.

    Next are rows of the same name, then of the same backbone and size, then of the same backbone; of train first.
    """
    backbones = {backbone_of(name) for name in names}
    passes = {(backbone_of(name), size_of(name)) for name in names}

    def distance(path: Path) -> tuple[bool, bool, bool, bool, Path]:
        backbone = backbone_of(path.stem)
        is_other_pass = (backbone, size_of(path.stem)) not in passes
        return path.stem not in names, is_other_pass, backbone not in backbones, path.parent.name != "train", path

    recipes = {}
    for path in sorted(cache.glob("[!.]*/[!.]*.h5"), key=distance):
        try:
            recipes[path.relative_to(cache)] = CacheFile.open(path).recipe
        except DamagedFile:
            if backbone_of(path.stem) in backbones:
                raise
    if differing := [option for option, found in _reading_values(options, recipes).items() if len(found) > 1]:
        said, others = _describe_ways(_group_ways(recipes, differing)), " and ".join(f"--{name}" for name in differing)
        say(
            f"rows in {cache} were extracted differently: {said}. New rows are as the first of these (others: {others})"
        )
    return next(map(Reading.of, recipes.values()), Reading())


def _reading_values(options: ExtractOptions, recipes: Mapping[Path, Recipe]) -> dict[str, set[str]]:
    """The values that recipes have, by the options of reading that are not given and have a say."""
    ways = [recipe.reading_options for recipe in recipes.values()]
    values = {
        option: {way[option] for way in ways if option in way}
        for option in ("views", "ranges", "range", "fit", "orientation")
        if getattr(options, option) is None
    }
    if options.views is not None and not are_random(name_views(options.views)):
        values.pop("ranges", None)
    return values


def _group_ways(recipes: Mapping[Path, Recipe], differing: Sequence[str]) -> dict[str, list[Path]]:
    """Group cache files by the options that differ, in words."""
    ways: dict[str, list[Path]] = {}
    for path, recipe in recipes.items():
        how = join_words(*option_words({option: recipe.reading_options.get(option) for option in differing}))
        ways.setdefault(how or "no ranges", []).append(path)
    return ways


def _describe_ways(ways: Mapping[str, Sequence[Path]]) -> str:
    """Say in which way which cache files were extracted."""
    return "; ".join(f"{how} in {first_few(list(map(str, files)), 2)}" for how, files in ways.items())


def _way_apart(ways: Mapping[str, Sequence[Path]]) -> str:
    """Say which commands keep all rows, each of one way; "" where splits differ, which no option tells apart."""
    how_of = {path: how for how, files in ways.items() for path in files}

    def tells_apart(key: Callable[[str], str]) -> list[str]:
        """The values of a key of rows if rows of one value are of one way."""
        found: dict[str, set[str]] = {}
        for path, how in how_of.items():
            found.setdefault(key(path.stem), set()).add(how)
        return list(found) if all(len(hows) == 1 for hows in found.values()) else []

    if tells_apart(backbone_of):
        return "; or run backbones that differ in commands of their own, which keeps all rows"
    for option, key in (("--features", features_of), ("--sizes", lambda name: size_of(name) or "native")):
        if values := tells_apart(key):
            each = " and ".join(f"{option} {value}" for value in values)
            return f"; or run {each} in commands of their own, which keeps all rows"
    if tells_apart(str):
        return "; or run one backbone, one of --sizes and one of --features a command, which keeps all rows"
    return ""


def choose_reading(
    options: ExtractOptions,
    kept: Reading,
    cache: Path,
    images: Sequence[Images],
    console: Console,
    stop: Callable[[], bool],
) -> Reading:
    """Choose how images are read, but for the window: as asked for, else as in the cache, else as the images are.

    Args:
        options: what is asked for.
        kept: as `kept_reading` gives it.
        cache: where that is from, for what is said.
        images: those to read.
        console: where it is said.
        stop: ends a long look at the images.
    """
    views, ranges = _choose_views(options, kept, cache, console)
    return Reading(
        fit=options.fit or _say_fit(kept, cache, console),
        intensity_range=_find_range(options, kept, cache, images, console, stop),
        orientation=options.orientation or _say_orientation(kept, cache, console),
        views=views,
        ranges=ranges,
        max_pixels=options.max_pixels,
    )


def _say_fit(kept: Reading, cache: Path, console: Console) -> str:
    """Say which fit the rows of the cache have, where it is not the common one; return it."""
    if kept.fit != Reading.fit:
        console.print(f"images are made square by --fit {kept.fit}, as in {cache}")
    return kept.fit


def _choose_views(options: ExtractOptions, kept: Reading, cache: Path, console: Console) -> tuple[tuple[str, ...], str]:
    """Choose the views and how far random ones may be from the plain one: as asked for, else as in the cache."""
    views = kept.views if options.views is None else name_views(options.views)
    refuse_ranges(options.ranges, views)
    random = are_random(views)
    ranges = "" if not random else str(Ranges.parse(options.ranges)) if options.ranges else kept.ranges or str(Ranges())
    if len(views) > 1:
        source = f", as in {cache}" if options.views is None else ""
        console.print(f"{len(views)} views an image: {first_few(views, 3)}{f' ({ranges})' if random else ''}{source}")
    return views, ranges


def refuse_ranges(ranges: str | None, views: Sequence[str]) -> None:
    """Refuse by an `InputError` the ranges of views of which none is random."""
    if ranges is not None and not are_random(views):
        raise InputError(f"--ranges {ranges}: only random views have ranges. Give --views N, of 2 or more.")


def _say_orientation(kept: Reading, cache: Path, console: Console) -> str:
    """Say it where the rows of the cache do not follow the tags of orientation; return whether they do."""
    if kept.orientation == "stored":
        console.print(
            f"tags of orientation are not followed but in TIFF files, as in {cache}; --orientation exif follows them, "
            "and extracts all images again"
        )
    return kept.orientation


def _find_range(
    options: ExtractOptions,
    kept: Reading,
    cache: Path,
    images: Sequence[Images],
    console: Console,
    stop: Callable[[], bool],
) -> tuple[int, int]:
    """Find the range of 16-bit images and say it: as asked for, or as in the cache, or of what train or others hold."""
    if options.range not in (None, "auto"):
        return parse_range(options.range or "")
    whole = Reading().intensity_range
    if options.range is None and kept.intensity_range != whole:
        low, high = kept.intensity_range
        console.print(f"16-bit images: values {low} to {high} become black to white, as in {cache}")
        return low, high
    for split in sorted(images, key=lambda split: split.split != "train"):
        pairs = list(zip(split.image_ids, split.paths, strict=True))
        facts = FactsTable.of_split(cache, split.split)
        with show_progress(console, len(pairs)) as advance:
            deep = survey_deep_images(
                pairs,
                facts,
                options.max_pixels,
                options.workers or cores(),
                lambda count: advance(count, f"looking for 16-bit images of {split.split}"),  # noqa: B023 - called here
                stop,
            )
        if deep.count:
            low, high = deep.range
            console.print(
                f"{deep.count:,} images of {split.split} have 16 bits: their values {low} to {high} become black to "
                f"white, which leaves out {TAIL:.2%} of the pixels at either end. Another range: --range LOW,HIGH"
            )
            return low, high
    return whole
