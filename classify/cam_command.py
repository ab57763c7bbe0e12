"""What `python -m classify cam` does: read a run and maps, write heat maps, overlays and boxes into RUN/cam."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.cam import Region, enlarge, find_regions, heat_maps, scale_box
from classify.cam_pictures import save_heat, save_overlay, save_thumbnail, to_levels
from classify.explanation import NO_FOLD, Explainer
from classify.prediction_tables import write_table
from classify.run_folder import CAM
from classify.saved_run import SavedRun
from classify.thresholds import to_binary
from features.cache import FeatureCache, read_index
from features.errors import InputError
from features.lock import hold
from features.maps import MapsFile, describe_maps, maps_files, maps_path, read_maps, read_thumbnails

#: What says how heat maps were made. It is written last.
RECORD = "cam.json"
#: The heat with the hottest colour is that which this share of the images do not reach, label by label.
_FULL_SHARE = 0.95
#: Images whose maps are held in memory at a time.
_BLOCK = 32


@dataclass(frozen=True)
class _Shown:
    """The images of one split that are shown.

    Attributes:
        split: its name.
        image_ids: the N images, in the order of the first backbone's file of maps.
        files: of each backbone.
        folds: int64 (N,), the fold that held the image out, or `NO_FOLD`.
        scores: float32 (N, L), the model's probabilities; out-of-fold where a fold held the image out.
        heats: of each backbone float32 (N, L, h, w).
    """

    split: str
    image_ids: list[str]
    files: dict[str, MapsFile]
    folds: np.ndarray
    scores: np.ndarray
    heats: list[np.ndarray]

    def heat(self, row: int, label: int, shape: tuple[int, int]) -> np.ndarray:
        """The heat map of one image and label over all backbones: float32 array of the shape wanted."""
        return enlarge([heats[row, label] for heats in self.heats], shape)


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
    feature_cache = FeatureCache(cache or saved.cache)
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
    with _renewing(run) as folder:
        boxes = _write(folder, saved, name, shown)
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
    if left_out:
        first, reason = next(iter(left_out.items()))
        console.print(f"{len(left_out)} images are not shown (first: {first}: {reason}): {RECORD} lists them")


def _explain(
    run: SavedRun, model: str, explainer: Explainer, cache: FeatureCache, split: str, left_out: dict[str, str]
) -> _Shown:
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
        return _Shown(split, [], files, np.zeros(0, np.int64), np.zeros((0, len(run.label_names))), [])
    _, matrix = cache.read(split, explainer.backbones, image_ids)
    folds, scores = _score(run, model, split, image_ids, matrix)
    heats = [np.empty((len(image_ids), len(run.label_names), *file.shape[:2]), np.float32) for file in files.values()]
    for start in range(0, len(image_ids), _BLOCK):
        block = slice(start, start + _BLOCK)
        gradients = explainer.explain(matrix[block], folds[block]).gradients
        for heat, (name, file) in zip(heats, files.items(), strict=True):
            maps = read_maps(file, image_ids[block])
            heat[block] = heat_maps(maps, gradients[:, :, explainer.columns[name]])
    return _Shown(split, image_ids, files, folds, scores, heats)


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


def _score(
    run: SavedRun, model: str, split: str, image_ids: list[str], features: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find each image's fold, int64 (N,), and the model's probabilities, float32 (N, L)."""
    folds = np.full(len(image_ids), NO_FOLD, np.int64)
    scores = np.empty((len(image_ids), len(run.label_names)), np.float32)
    if split == "train":
        table = _read_out_of_fold(run, model).reindex(image_ids)
        held_out = table["fold"].notna().to_numpy()
        folds[held_out] = table["fold"][held_out]
        scores[held_out] = table.loc[held_out, list(run.label_names)]
    new = np.flatnonzero(folds == NO_FOLD)
    if len(new):
        scores[new] = run.predict(model, features[new])
    return folds, scores


def _read_out_of_fold(run: SavedRun, model: str) -> pd.DataFrame:
    """Read a model's out-of-fold probabilities, by id.

    Raises:
        InputError: `oof_probability.csv` is missing or damaged.
    """
    path = run.folder / "oof_probability.csv"
    try:
        table = pd.read_csv(path, dtype={"ID": str, "model": str}, keep_default_na=False)
        return table[table["model"] == model].set_index("ID")[["fold", *run.label_names]]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}). Make the run again.") from None


@contextmanager
def _renewing(run: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of RUN/cam when the block ends well.

    Raises:
        InputError: RUN/cam is not ours, another process writes it, or the disk does not take it.
    """
    target, staging, lock = run / CAM, run / f".{CAM}.partial", run / f".{CAM}.lock"
    if target.exists() and not (target / RECORD).is_file():
        raise InputError(f"{target} holds no heat maps of Headbank ({RECORD} is missing). Remove or rename it.")
    with hold(lock):
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            yield staging
            if target.exists():
                shutil.rmtree(target)
            staging.replace(target)
        except OSError as error:
            raise InputError(
                f"{target} cannot be written ({error.strerror or error}). Make room on its disk."
            ) from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _write(folder: Path, run: SavedRun, model: str, shown: list[_Shown]) -> int:
    """Write tables and pictures; return the number of boxes."""
    labels = range(len(run.label_names))
    for place in ("thumbnails", *(f"{kind}/{label}" for kind in ("heat", "overlays") for label in labels)):
        (folder / place).mkdir(parents=True)
    full = _full_heat(shown, len(labels))
    thresholds = run.thresholds(model)
    images: list[dict[str, Any]] = []
    boxes: list[tuple[Any, ...]] = []
    for part in shown:
        decided = to_binary(part.scores, thresholds)
        first = next(iter(part.files.values()))
        for start in range(0, len(part.image_ids), _BLOCK):
            pictures = read_thumbnails(first, part.image_ids[start : start + _BLOCK])
            for row, (thumbnail, size) in enumerate(pictures, start):
                file = f"{len(images):05d}"
                images.append({"split": part.split, "ID": part.image_ids[row], "file": file})
                save_thumbnail(thumbnail, folder / "thumbnails" / f"{file}.png")
                for label in labels:
                    heat = part.heat(row, label, thumbnail.shape[:2])
                    regions: list[Region] = find_regions(heat) if decided[row, label] else []
                    # The few images beyond the common scale have one of their own, so that none is one bright blot.
                    levels = to_levels(heat, max(full[label], float(heat.max() - np.median(heat))))
                    save_heat(levels, folder / "heat" / str(label) / f"{file}.png")
                    path = folder / "overlays" / str(label) / f"{file}.png"
                    save_overlay(thumbnail, levels, [region.box for region in regions], path)
                    of_image = (part.split, part.image_ids[row], run.label_names[label])
                    score = part.scores[row, label]
                    boxes += [
                        (*of_image, *scale_box(region.box, heat.shape, size), score, np.float32(region.heat))
                        for region in regions
                    ]
    write_table(pd.DataFrame(images), folder / "images.csv")
    columns = ["split", "ID", "label", "x0", "y0", "x1", "y1", "score", "heat"]
    write_table(pd.DataFrame(boxes, columns=columns), folder / "boxes.csv")
    return len(boxes)


def _full_heat(shown: list[_Shown], labels: int) -> np.ndarray:
    """Say, per label, which heat above an image's median has the hottest colour: float64 (L,), above 0.

    One scale for all images: an image without anything hot stays pale, which a scale of its own would hide.
    """
    peaks = []
    for part in shown:
        for row in range(len(part.image_ids)):
            heats = [part.heat(row, label, (32, 32)) for label in range(labels)]
            peaks.append([heat.max() - np.median(heat) for heat in heats])
    full = np.quantile(np.array(peaks), _FULL_SHARE, axis=0)
    return np.where(full > 0, full, 1.0)
