"""Write RUN/cam: pictures of the heat, boxes, and the tables that list them, all of it or nothing."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from classify.cam.cam import Region, enlarge, find_regions, scale_box
from classify.cam.pictures import save_heat, save_overlay, save_thumbnail, to_levels
from classify.rundir.folder import CAM
from classify.rundir.saved_run import SavedRun
from classify.rundir.tables import write_table
from classify.scores.thresholds import to_binary
from features.common.errors import InputError
from features.common.files import hold
from features.store.maps import MapsFile, read_thumbnails

#: What says how heat maps were made. It is written last.
RECORD = "cam.json"
#: The heat with the hottest colour is that which this share of the images do not reach, label by label.
_FULL_SHARE = 0.95
#: Images whose maps or pictures are held in memory at a time.
BLOCK = 32


@dataclass(frozen=True)
class Shown:
    """The images of one split that are shown.

    Attributes:
        split: its name.
        image_ids: the N images, in the order of the first backbone's file of maps.
        files: of each backbone.
        folds: int64 (N,), the fold that held the image out, or `NO_FOLD`; empty without heat.
        scores: float32 (N, L), the model's probabilities; out-of-fold where a fold held the image out; empty without
            heat.
        heats: of each backbone float32 (N, L, h, w); none where the model has no gradient.
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


@contextmanager
def renewing(run: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of RUN/cam when the block ends well.

    Raises:
        InputError: RUN/cam is not ours or a link, another process writes it, or the disk does not take it.
    """
    target, staging, lock = run / CAM, run / f".{CAM}.partial", run / f".{CAM}.lock"
    if target.is_symlink():
        raise InputError(f"{target} is a link, which a folder of heat maps would replace. Remove or rename it.")
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
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            remedy = "Make room on its disk." if full else "See to it that its folder can be written to."
            raise InputError(f"{target} cannot be written ({error.strerror or error}). {remedy}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            lock.unlink(missing_ok=True)  # while it is held, which `hold` allows


def write_pictures(folder: Path, run: SavedRun, model: str, shown: list[Shown]) -> int:
    """Write tables and pictures, thumbnails alone where there is no heat; return the number of boxes."""
    labels = range(len(run.label_names) if shown[0].heats else 0)
    for place in ("thumbnails", *(f"{kind}/{label}" for kind in ("heat", "overlays") for label in labels)):
        (folder / place).mkdir(parents=True)
    full = _full_heat(shown, len(labels))
    thresholds = run.thresholds(model)
    images: list[dict[str, Any]] = []
    boxes: list[tuple[Any, ...]] = []
    for part in shown:
        decided = to_binary(part.scores, thresholds) if labels else part.scores
        first = next(iter(part.files.values()))
        for start in range(0, len(part.image_ids), BLOCK):
            pictures = read_thumbnails(first, part.image_ids[start : start + BLOCK])
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


def _full_heat(shown: list[Shown], labels: int) -> np.ndarray:
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
