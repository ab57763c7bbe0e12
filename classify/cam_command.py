"""What `python -m classify cam` does: read a run and maps, write heat maps, overlays and boxes into RUN/cam."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.cam import heat_maps
from classify.cam_files import BLOCK, RECORD, Shown, renewing, write_pictures
from classify.cam_scores import score_images
from classify.explanation import Explainer
from classify.run_folder import CAM
from classify.saved_run import SavedRun
from features.cache import FeatureCache, read_index
from features.errors import InputError
from features.maps import MapsFile, describe_maps, maps_files, maps_path, read_maps


@threadpool_limits.wrap(1, user_api="blas")  # of thousands of small products: threads would wait for each other
def draw_run(run: Path, cache: Path | None, model: str | None) -> None:
    """Write RUN/cam; an earlier one is replaced.

    Args:
        run: folder of a finished run.
        cache: folder of features and maps; None for the run's own.
        model: a model of the run; None for its final one.

    Raises:
        InputError: no finished run, no maps, maps of another fingerprint, a model without a gradient, or a folder that
            cannot be written.
    """
    saved = SavedRun.load(run)
    name = saved.choose(model)
    explainer = Explainer(saved, name)
    feature_cache = _open_cache(saved, cache)
    gallery = _read_gallery(run)
    left_out: dict[str, str] = {}
    shown = [
        _explain(saved, name, explainer, feature_cache, split, left_out)
        for split in sorted({path.parent.name for path in maps_files(feature_cache.root)})
    ]
    shown = [part for part in shown if part.image_ids]
    count = sum(len(part.image_ids) for part in shown)
    if not count:
        raise InputError(
            f"{feature_cache.root} holds no maps that {name} could be shown on: they are needed of "
            f"{', '.join(explainer.backbones)}. Run: python -m extract maps DATA --from {run} "
            f"--cache {feature_cache.root}"
        )
    there = {f"{part.split}/{image_id}" for part in shown for image_id in part.image_ids}
    missing = {image: left_out.get(image, "no maps of it are cached") for image in gallery if image not in there}
    left_out = missing | left_out
    with renewing(run) as folder:
        boxes = write_pictures(folder, saved, name, shown)
        record = {
            "model": name,
            "labels": list(saved.label_names),
            "members": {
                member: dict(zip(saved.label_names, weight.tolist(), strict=True))
                for member, weight in explainer.weights.members.items()
            },
            "left_out": explainer.weights.left_out,
            "covered": round(explainer.weights.covered, 6),
            "images_left_out": left_out,
            "fingerprints": {backbone: saved.recipes[backbone].fingerprint for backbone in explainer.backbones},
        }
        (folder / RECORD).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{count:,} images, {boxes:,} boxes where {name} says yes, written to {run / CAM}")
    if explainer.weights.left_out:
        console.print(
            f"without a gradient, so left out: {', '.join(explainer.weights.left_out)} "
            f"({1 - explainer.weights.covered:.0%} of the shares)"
        )
    if missing:
        first, reason = next(iter(missing.items()))
        console.print(
            f"not shown: {len(missing):,} of the {len(gallery):,} images of the gallery (first: {first}: {reason}): "
            f"{RECORD} lists them"
        )
    if others := len(left_out) - len(missing):  # asked for by name, or for another run
        console.print(
            f"not shown: {others:,} images beside the gallery's, which have some maps only: {RECORD} says why"
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
    files = _open_maps(run, explainer, cache, split)
    names = list(dict.fromkeys(image_id for file in files.values() for image_id in file.digests))
    features = {name: read_index(cache.path(split, name)) for name in files}
    image_ids = []
    for image_id in names:
        lacking = [name for name in explainer.backbones if name not in files or image_id not in files[name].digests]
        stale = [name for name, file in files.items() if file.digests.get(image_id) != features[name].get(image_id)]
        if lacking:
            left_out[f"{split}/{image_id}"] = f"no map by {', '.join(lacking)}"
        elif stale:
            left_out[f"{split}/{image_id}"] = f"maps and features by {', '.join(stale)} are of different files"
        else:
            image_ids.append(image_id)
    if not image_ids:
        return Shown(split, [], files, np.zeros(0, np.int64), np.zeros((0, len(run.label_names))), [])
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


def _open_maps(run: SavedRun, explainer: Explainer, cache: FeatureCache, split: str) -> dict[str, MapsFile]:
    """Find the maps of the backbones that are needed, as far as there are any.

    Raises:
        InputError: some are damaged, or of another fingerprint than what the run learnt from.
    """
    files = {}
    for name in explainer.backbones:
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
