"""What `python -m extract maps` does: find the images and backbones, extract their maps, say so."""

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from extract.backbones.build import FrozenBackbone
from extract.backbones.table import backbone_named
from extract.backbones.weights import find_model, find_weights
from extract.maps import MapsReport, Wanted, check_recipe, extract_maps, renewal
from extract.maps_renewal import CompiledMaps
from extract.pipeline import Images
from extract.run import find_images
from extract.runtime import cores
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError
from features.common.keras_import import backend_name
from features.common.text import duration, make_console, size
from features.dataset.folder import to_image_id
from features.store.cache import FeatureCache, default_cache
from features.store.recipe import Recipe

#: What a run says of its models, and of the images that its gallery shows.
_RECORD, _GALLERY = "run.json", "gallery.csv"


@dataclass(frozen=True)
class MapsOptions:
    """The options of the command, as they were typed; `python -m extract maps --help` describes them."""

    data: Path
    ids: tuple[str, ...]
    run: Path | None
    backbones: tuple[str, ...]
    cache: Path | None
    weights_dir: Path | None
    id_column: str | None
    split: str | None


def run_maps(options: MapsOptions) -> int:
    """Run the command.

    Returns:
        The exit code: 0 done, 3 done but some images could not be read, or do not go with the features.

    Raises:
        InputError: bad options or bad input.
    """
    console = make_console()
    start = time.monotonic()
    if bool(options.ids) == (options.run is not None):
        raise InputError("name the images by --ids a,b, or by --from RUN: one of the two.")
    cache = FeatureCache(options.cache or _cache_of(options))
    images = find_images(options.data, options.split, options.cache, options.id_column)
    if options.run is not None:
        chosen = _choose(images, _read_gallery(options.run), f"{options.run / _GALLERY}")
        recipes = _read_recipes(options.run)
    else:
        ids = {to_image_id(image_id) for image_id in options.ids}  # they may carry the extension, as in the CSV
        chosen = _choose(images, {(split.split, i) for split in images for i in ids}, "--ids")
        recipes = {}
    frozen: dict[str, FrozenBackbone] = {}
    wanted = []
    for part in chosen:
        of_split = _of_split(cache, part.split, options, recipes)
        for name, recipe in of_split.items():
            frozen.setdefault(recipe.fingerprint, _freeze(name, recipe, options.weights_dir))
        wanted.append(Wanted(part, {name: (frozen[r.fingerprint], r) for name, r in of_split.items()}))
    counts = " and ".join(f"{len(part.image_ids):,} {part.split}" for part in chosen)
    names = ", ".join(dict.fromkeys(name for part in wanted for name in part.backbones))
    console.print(f"maps of {counts} images of {options.data} by {names}, into {cache.root}")
    report = extract_maps(wanted, cache.root, cores(), CompiledMaps(), console.print)
    return _conclude(report, time.monotonic() - start, renewal(cache.root, wanted), console)


def _cache_of(options: MapsOptions) -> Path:
    """Say which cache is meant where none is named: the run's, if it is seen from here, or that of the data set."""
    if options.run is None:
        return default_cache(options.data)
    path = options.run / _RECORD
    try:
        of_run = Path(json.loads(path.read_text(encoding="utf-8"))["cache"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error!r}). Give the folder of a finished run.") from None
    return of_run if of_run.is_dir() else default_cache(options.data)


def _choose(images: Sequence[Images], wanted: set[tuple[str, str]], source: str) -> list[Images]:
    """Pick the images wanted, by split and id, in the order of the data set.

    Raises:
        InputError: an image is in no split; the message names the first.
    """
    chosen = []
    for split in images:
        pairs = [(i, path) for i, path in zip(split.image_ids, split.paths, strict=True) if (split.split, i) in wanted]
        if pairs:
            ids, paths = zip(*pairs, strict=True)
            chosen.append(Images(split.split, ids, paths))
    found = {(split.split, i) for split in chosen for i in split.image_ids}
    # An id given by --ids stands for that image in every split that has it.
    missing = wanted - found if source != "--ids" else {(s, i) for s, i in wanted if i not in {j for _, j in found}}
    if missing or not chosen:
        example = f"first: {min(missing)[1]}" if missing else "it names none"
        splits = ", ".join(split.split for split in images)
        raise InputError(
            f"{source} names {len({i for _, i in missing})} images that DATA does not have in {splits} ({example}). "
            f"Check DATA and the ids."
        )
    return chosen


def _read_gallery(run: Path) -> set[tuple[str, str]]:
    """Read which images a run's gallery shows: split and id.

    Raises:
        InputError: there is no gallery, or it is damaged.
    """
    path = run / _GALLERY
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return {(row["split"], row["ID"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read ({error}). Give the folder of a finished run, or name images with --ids."
        ) from None


def _read_recipes(run: Path) -> dict[str, Recipe]:
    """Read from a run how the backbones that its final model sees were extracted.

    Raises:
        InputError: the record is missing or damaged.
    """
    path = run / _RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names = record["models"][record["final_model"]]["backbones"]
        entries: Mapping[str, Any] = record["backbones"]
        return {name: Recipe.from_record(entries[name]["recipe"]) for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read ({error!r}). Give the folder of a finished run.") from None


def _of_split(cache: FeatureCache, split: str, options: MapsOptions, of_run: Mapping[str, Recipe]) -> dict[str, Recipe]:
    """Say by which backbones the maps of a split are wanted: those of the run, those named, or all that are cached.

    Raises:
        InputError: none; or the features in the cache are not those of the run.
    """
    names = options.backbones or tuple(of_run) or cache.backbones(split)
    if not names:
        raise InputError(
            f"{cache.root / split} holds no features to show maps of. Run: scripts/extract.sh DATA --cache {cache.root}"
        )
    recipes = {}
    for name in names:
        cached = cache.open(split, name)
        if name in of_run and of_run[name].fingerprint != cached.fingerprint:
            raise InputError(
                f"{cached.path} was extracted otherwise than what {options.run} learnt from "
                f"({of_run[name].differences(cached.recipe)}). Name the --cache that it learnt from."
            )
        recipes[name] = cached.recipe
    return recipes


def _freeze(name: str, recipe: Recipe, weights_dir: Path | None) -> FrozenBackbone:
    """Find the backbone that features were extracted with.

    Raises:
        InputError: its weights are not there, or others.
    """
    if recipe.is_own_model:
        backbone = FrozenBackbone.of_model(*find_model(f"{name}={recipe.weights}"))
    else:
        row = backbone_named(name)
        weights = find_weights(row, recipe.weights_option, weights_dir, backend_name())
        backbone = FrozenBackbone.of_table(row, weights, recipe.precision)
    check_recipe(backbone, recipe)
    return backbone


def _conclude(report: MapsReport, seconds: float, remedy: str, console: Console) -> int:
    """Say what was done, and what of images that do not go with the features; return the exit code."""
    there = [path for path in report.files if path.exists()]
    total = size(sum(path.stat().st_size for path in there))
    console.print(
        f"{report.extracted:,} maps extracted, {report.kept:,} were up to date ({duration(seconds)}); "
        f"{', '.join(map(str, there)) or 'no file'}: {total}"
    )
    if report.rejected:
        first = report.rejected[0]
        console.print(
            f"{len(report.rejected):,} images could not be read (first: {first.path}: {first.reason}): no new maps of "
            "them"
        )
    if report.mismatched:
        first = report.mismatched[0]
        console.print(
            f"{len(report.mismatched):,} images do not go with the features (first: {first.path}: {first.reason}): no "
            f"new maps of them. {remedy}"
        )
    return EXIT_REJECTED if report.rejected or report.mismatched else 0
