"""What `python -m classify cam` does: read a run and maps, write heat maps, overlays and boxes into RUN/cam."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.cam.cam import heat_maps
from classify.cam.files import BLOCK, RECORD, Shown, renewing, write_pictures
from classify.cam.scores import score_images
from classify.rundir.explanation import Explainer, NoGradientError, Weights
from classify.rundir.folder import CAM
from classify.rundir.saved_run import SavedRun
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError
from features.common.text import make_console
from features.store.cache import FeatureCache
from features.store.maps import MapsFile, check_width, describe_maps, maps_files, maps_path, read_maps

#: How the reason ends for which images are left out whose maps are not of the files that the features are of.
_STALE = "are of different files"


@threadpool_limits.wrap(1, user_api="blas")  # of thousands of small products: threads would wait for each other
def draw_run(run: Path, cache: Path | None, model: str | None) -> int:
    """Write RUN/cam; an earlier one is replaced.

    Args:
        run: folder of a finished run.
        cache: folder of features and maps; None for the run's own.
        model: a model of the run; None for its final one, or where that has no gradient for thumbnails without heat.

    Returns:
        The exit code: 0 done, 3 done but some images of the gallery have maps that cannot be shown.

    Raises:
        InputError: no finished run, no maps, maps of another fingerprint, a model named that has no gradient, or a
            folder that cannot be written.
    """
    saved = SavedRun.load(run)
    name = saved.choose(model)
    explainer, without = _explainer(saved, name, model is not None)
    feature_cache = _open_cache(saved, cache)
    gallery = _read_gallery(run)
    backbones = explainer.backbones if explainer else saved.needs(name) or tuple(saved.widths)
    left_out: dict[str, str] = {}
    shown = [
        _explain(saved, name, explainer, feature_cache, split, left_out)
        if explainer
        else _without_heat(saved, backbones, feature_cache, split, left_out)
        for split in sorted({path.parent.name for path in maps_files(feature_cache.root)})
    ]
    shown = [part for part in shown if part.image_ids]
    count = sum(len(part.image_ids) for part in shown)
    if not count:
        raise _nothing_to_show(run, feature_cache.root, name, backbones, left_out)
    there = {f"{part.split}/{image_id}" for part in shown for image_id in part.image_ids}
    missing = {image: left_out.get(image, "no maps of it are cached") for image in gallery if image not in there}
    refused = [image for image in missing if image in left_out]
    left_out = missing | left_out
    weights = explainer.weights if explainer else Weights({}, without.left_out if without else {}, 0.0)
    with renewing(run) as folder:
        boxes = write_pictures(folder, saved, name, shown)
        record = {
            "model": name,
            "labels": list(saved.label_names),
            "members": {
                member: dict(zip(saved.label_names, weight.tolist(), strict=True))
                for member, weight in weights.members.items()
            },
            "left_out": weights.left_out,
            "covered": round(weights.covered, 6),
            "images_left_out": left_out,
            "fingerprints": {backbone: saved.recipes[backbone].fingerprint for backbone in backbones},
        } | ({"no_heat": without.reason} if without else {})
        (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console = make_console()
    if without:
        console.print(f"{count:,} thumbnails written to {run / CAM}, without heat: {without.reason}. {without.remedy}")
    else:
        console.print(f"{count:,} images, {boxes:,} boxes where {name} says yes, written to {run / CAM}")
        _say_members(weights, console)
    if missing:
        first = next(iter(refused or missing))
        console.print(
            f"not shown: {len(missing):,} of the {len(gallery):,} images of the gallery (first: {first}: "
            f"{missing[first]}): {RECORD} lists them"
        )
    if others := len(left_out) - len(missing):  # asked for by name, or for another run
        console.print(
            f"not shown: {others:,} images beside the gallery's, whose maps cannot be shown: {RECORD} says why"
        )
    if _is_stale(left_out):
        console.print(_bring_up_to_date(run, feature_cache.root))
    return EXIT_REJECTED if refused else 0


def _say_members(weights: Weights, console: Console) -> None:
    """Say which members have no part in the heat."""
    if weights.left_out:
        console.print(
            f"without a gradient, so left out: {', '.join(weights.left_out)} ({1 - weights.covered:.0%} of the shares)"
        )


def _explainer(run: SavedRun, model: str, named: bool) -> tuple[Explainer | None, NoGradientError | None]:
    """Explain a model, or say why that cannot be.

    Raises:
        InputError: it has no gradient, and was asked for by name; or a model's file is missing or damaged.
    """
    try:
        return Explainer(run, model), None
    except NoGradientError as error:
        if named:
            raise
        return None, error


def _nothing_to_show(
    run: Path, cache: Path, model: str, backbones: Sequence[str], left_out: dict[str, str]
) -> InputError:
    """Make the error of a cache whose maps do not serve; an earlier RUN/cam stays."""
    reason = ""
    if left_out:
        first, why = next(iter(left_out.items()))
        reason = f" (of {len(left_out):,} images there are some; first: {first}: {why})"
    remedy = f"Run: python -m extract maps DATA --from {run} --cache {cache}"
    return InputError(
        f"{cache} holds no maps that {model} could be shown on{reason}: they are needed of {', '.join(backbones)}. "
        f"{_bring_up_to_date(run, cache) if _is_stale(left_out) else remedy}"
    )


def _is_stale(left_out: dict[str, str]) -> bool:
    """Whether an image was left out because it was written anew between its features and its maps."""
    return any(reason.endswith(_STALE) for reason in left_out.values())


def _bring_up_to_date(run: Path, cache: Path) -> str:
    """Say what makes maps and features be of the same files."""
    return (
        "Bring features and maps up to date, the features with the options that made them: scripts/extract.sh DATA "
        f"--cache {cache}; then python -m extract maps DATA --from {run} --cache {cache}"
    )


def _open_cache(run: SavedRun, cache: Path | None) -> FeatureCache:
    """Open the cache asked for, or that which the run learnt from.

    Raises:
        InputError: it is not there.
    """
    if cache is None and not run.cache.is_dir():
        raise InputError(
            f"{run.cache}, the cache that {run.folder} learnt from, is not there as seen from {Path.cwd()}. Name it "
            "with --cache."
        )
    return FeatureCache(cache or run.cache)


def _read_gallery(run: Path) -> list[str]:
    """List the images of a run's gallery, as `split/id`, each once.

    Raises:
        InputError: `gallery.csv` is missing or damaged.
    """
    path = run / "gallery.csv"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return list(dict.fromkeys(table["split"] + "/" + table["ID"]))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}). Make the run again.") from None


def _explain(
    run: SavedRun, model: str, explainer: Explainer, cache: FeatureCache, split: str, left_out: dict[str, str]
) -> Shown:
    """Compute the heat maps of a split's images; note why some have none."""
    files, image_ids = _find_images(run, explainer.backbones, cache, split, left_out)
    if not image_ids:
        return Shown(split, [], files, np.zeros(0, np.int64), np.zeros((0, len(run.label_names))), [])
    run.refuse_other_features(cache, split, model)
    _, matrix = cache.read(split, explainer.backbones, image_ids)
    folds, scores = score_images(run, model, split, image_ids, matrix)
    heats = [np.empty((len(image_ids), len(run.label_names), *file.shape[:2]), np.float32) for file in files.values()]
    for start in range(0, len(image_ids), BLOCK):
        block = slice(start, start + BLOCK)
        gradients = explainer.explain(matrix[block], folds[block]).gradients
        for heat, (name, file) in zip(heats, files.items(), strict=True):
            maps = read_maps(file, image_ids[block])
            heat[block] = heat_maps(maps, gradients[:, :, explainer.columns[name]])
    return Shown(split, image_ids, files, folds, scores, heats)


def _without_heat(
    run: SavedRun, backbones: Sequence[str], cache: FeatureCache, split: str, left_out: dict[str, str]
) -> Shown:
    """Find a split's images; note why some cannot be shown."""
    files, image_ids = _find_images(run, backbones, cache, split, left_out)
    return Shown(split, image_ids, files, np.zeros(0, np.int64), np.zeros((0, 0)), [])


def _find_images(
    run: SavedRun, backbones: Sequence[str], cache: FeatureCache, split: str, left_out: dict[str, str]
) -> tuple[dict[str, MapsFile], list[str]]:
    """Find the images of a split whose maps go with the features, by all backbones; note why others do not.

    Raises:
        InputError: maps or features are damaged, or not those that the run learnt from; or there are no features.
    """
    files = _open_maps(run, backbones, cache, split)
    features = {}
    for name, file in files.items():
        check_width(file, cache.open(split, name).width)
        features[name] = cache.open(split, name).index
    image_ids = []
    for image_id in dict.fromkeys(image_id for file in files.values() for image_id in file.digests):
        lacking = [name for name in backbones if name not in files or image_id not in files[name].digests]
        stale = [name for name, file in files.items() if file.digests.get(image_id) != features[name].get(image_id)]
        if lacking:
            left_out[f"{split}/{image_id}"] = f"no map by {', '.join(lacking)}"
        elif stale:
            left_out[f"{split}/{image_id}"] = f"maps and features by {', '.join(stale)} {_STALE}"
        else:
            image_ids.append(image_id)
    return files, image_ids


def _open_maps(run: SavedRun, backbones: Sequence[str], cache: FeatureCache, split: str) -> dict[str, MapsFile]:
    """Find the maps of the backbones that are needed, as far as there are any.

    Raises:
        InputError: some are damaged, or of another fingerprint than what the run learnt from.
    """
    files = {}
    for name in backbones:
        path = maps_path(cache.root, split, name)
        if not path.exists():
            continue
        file = describe_maps(path)
        wanted = run.recipes[name]
        if file.fingerprint != wanted.fingerprint:
            raise InputError(
                f"{file.path} was extracted otherwise than what {run.folder} learnt from "
                f"({wanted.differences(file.recipe)}). Name the --cache that it learnt from."
            )
        files[name] = file
    return files
