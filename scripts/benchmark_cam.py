"""Measure whether heat maps point at the bleeds of phantom slices: `scripts/benchmark.py cam`."""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import joblib
import numpy as np
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from classify.explain import NO_FIT, Explainer
from classify.rundir.saved_run import SavedRun
from extract.backbones.build import FrozenBackbone
from extract.backbones.table import EMBEDDED, backbone_named
from extract.backbones.weights import find_weights
from extract.images.decoding import decode
from extract.images.reading import Reading
from extract.images.resizing import WHOLE, resize
from extract.pictures.heat import compile_maps
from extract.pictures.heat_maps import enlarge
from features.common.text import make_console
from features.store.cache import FeatureCache
from scripts.phantom import write_phantom
from scripts.phantom_plan import plan_patient
from scripts.phantom_slice import brain_window, render

#: What is pointed at: half of the slices bear one of these each, and no other bleed.
KINDS = ("epidural", "intraparenchymal")
#: By how much a bleed's box is enlarged on each of its sides, as shares of the image's side. Together that is 10 % of
#: the image in width and height for the first, and on each side for the second.
MARGINS = (0.05, 0.10)
_SIZE = 512
_TRAIN_SEED, _SHOWN_SEED = 1, 2
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Target:
    """A slice with one bleed.

    Attributes:
        image_id: its id.
        kind: one of KINDS.
        box: x0, y0, x1, y1 of the bleed in pixels, as in lesions.csv.
        inside: bool array (S, S): what lies within the skull.
    """

    image_id: str
    kind: str
    box: tuple[int, int, int, int]
    inside: np.ndarray


def benchmark_cam(images: int, train: int) -> None:
    """Print how often the hottest point falls on the bleed, against a random point within the skull.

    Args:
        images: slices to point at, half of each kind.
        train: phantom slices, of other patients, that the heads learn from.
    """
    console = make_console()
    with tempfile.TemporaryDirectory() as folder:
        data, shown, cache, run = (Path(folder) / name for name in ("data", "shown", "cache", "run"))
        write_phantom(data, {"train": train, "test": 0}, _SIZE, _TRAIN_SEED, -1)
        shown.mkdir()
        targets = draw_targets(shown, images, _SHOWN_SEED)
        backbones = ("--backbones", ",".join(EMBEDDED))
        _call("extract", "run", data, "--cache", cache, *backbones)
        _call("extract", "run", shown, "--split", "shown", "--cache", cache, *backbones)
        _call("classify", "run", data, "--cache", cache, "--out", run)
        maps = _feature_maps(shown, targets)
        saved = SavedRun.open(run)
        models = [name for name in saved.models if "/" in name] + [saved.final_model]
        console.print(
            f"{len(targets)} phantom slices of {_SIZE} x {_SIZE} with one bleed each, models learnt from {train} "
            f"others; share of slices whose hottest point falls into the bleed's box, and times that of a random point "
            f"within the skull"
        )
        table = Table(box=None, header_style="bold")
        table.add_column("model")
        for kind in KINDS:
            for margin in MARGINS:
                table.add_column(f"{kind} +{margin:.0%}", justify="right")
        table.add_row("random point", *(f"{chance:.2f}" for chance in _chances(targets)))
        for model in models:
            points = _hottest_points(saved, model, FeatureCache(cache), targets, maps)
            hits = _hits(targets, points)
            ratios = zip(hits, _chances(targets), strict=True)
            table.add_row(model, *(f"{hit:.2f} ({hit / chance:.1f} x)" for hit, chance in ratios))
        console.print(table)


def draw_targets(folder: Path, images: int, seed: int) -> list[Target]:
    """Write slices with one bleed as PNG, half of each kind: the first ones of the seed's patients.

    Args:
        folder: an existing folder.
        images: how many slices.
        seed: of the phantom.
    """
    left = dict.fromkeys(KINDS, images // 2)
    chosen = []
    number = 0
    while any(left.values()):
        patient = plan_patient(seed, number)
        for index in range(len(patient.levels)):
            kinds = [lesion.kind for lesion in patient.seen(index)]
            if len(kinds) == 1 and left.get(kinds[0], 0):
                left[kinds[0]] -= 1
                chosen.append((number, index))
        number += 1
    return joblib.Parallel(n_jobs=-1)(joblib.delayed(_draw)(folder, seed, *slice_) for slice_ in chosen)


def _draw(folder: Path, seed: int, number: int, index: int) -> Target:
    """Write one slice."""
    cv2.setNumThreads(1)  # the processes share the cores already
    rendered = render(plan_patient(seed, number), index, _SIZE)
    image_id = f"p{number:05d}_{index}"
    cv2.imwrite(str(folder / f"{image_id}.png"), brain_window(rendered.hu))
    return Target(image_id, rendered.lesions[0].kind, rendered.boxes[0], rendered.tissue > 0)


def _call(*arguments: str | Path) -> None:
    """Run one of the rooms' commands, as a person would."""
    subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=_ROOT, check=True, stdout=subprocess.DEVNULL)


def _feature_maps(folder: Path, targets: list[Target]) -> dict[str, np.ndarray]:
    """Compute the last feature maps of all slices: by backbone float32 (N, h, w, D)."""
    pixels = [
        decode((folder / f"{target.image_id}.png").read_bytes(), target.image_id, Reading())[0] for target in targets
    ]
    maps = {}
    for name in EMBEDDED:
        row = backbone_named(name)
        backbone = FrozenBackbone.of_table(row, find_weights(row, "imagenet", None), "float32")
        extract = compile_maps(backbone)
        blocks = range(0, len(pixels), 32)
        resized = ([resize(image, backbone.input_size) for image in pixels[start : start + 32]] for start in blocks)
        maps[name] = np.concatenate([extract(np.stack(block)) for block in resized])
    return maps


@threadpool_limits.wrap(1, user_api="blas")  # of small products, as in `extract heat`
def _hottest_points(
    run: SavedRun, model: str, cache: FeatureCache, targets: list[Target], maps: dict[str, np.ndarray]
) -> list[tuple[float, float]]:
    """Find the hottest point of each slice's heat map for its own label: x and y in pixels."""
    explainer = Explainer(run, model)
    ids = [target.image_id for target in targets]
    _, features = cache.read("shown", explainer.backbones, ids)
    gradients = explainer.explain(features, np.full((len(ids), 1), NO_FIT)).gradients
    points = []
    for row, target in enumerate(targets):
        gradient = gradients[row, run.label_names.index(target.kind)]
        heats = [maps[name][row] @ gradient[seen] for name, seen in explainer.columns.items()]
        heat = enlarge(heats, (_SIZE // 2, _SIZE // 2), [WHOLE] * len(heats))
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        points.append((2 * float(x) + 1, 2 * float(y) + 1))  # the middle of 2 x 2 pixels
    return points


def grow(box: tuple[int, int, int, int], margin: float, size: int) -> tuple[int, int, int, int]:
    """Enlarge a box on each side by a share of the image's side, within the image."""
    by = round(margin * size)
    return max(0, box[0] - by), max(0, box[1] - by), min(size, box[2] + by), min(size, box[3] + by)


def _hits(targets: list[Target], points: list[tuple[float, float]]) -> list[float]:
    """Share of points in their slices' enlarged boxes, kind by kind, margin by margin."""
    shares = []
    for kind in KINDS:
        for margin in MARGINS:
            inside = []
            for target, (x, y) in zip(targets, points, strict=True):
                x0, y0, x1, y1 = grow(target.box, margin, len(target.inside))
                if target.kind == kind:
                    inside.append(x0 <= x < x1 and y0 <= y < y1)
            shares.append(float(np.mean(inside)))
    return shares


def _chances(targets: list[Target]) -> list[float]:
    """The same share of a random point within the skull: the part of the inside that the box covers."""
    shares = []
    for kind in KINDS:
        for margin in MARGINS:
            covered = []
            for target in targets:
                x0, y0, x1, y1 = grow(target.box, margin, len(target.inside))
                if target.kind == kind:
                    covered.append(target.inside[y0:y1, x0:x1].sum() / target.inside.sum())
            shares.append(float(np.mean(covered)))
    return shares
