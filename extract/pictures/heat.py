"""What `python -m extract heat` does: draw where a model looks, into RUN/cam, from RUN/gradients.h5 and the images.

The backbones run over the images once more, cut before their pooling, and each map is multiplied by the gradient of its
pair of image and label. Nothing else of the run is read, and no cache.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from extract.backbones.build import FrozenBackbone, build_maps
from extract.backbones.folding import fold_batch_norms
from extract.backbones.rebuild import freeze
from extract.choices import find_images
from extract.images.decoding import UnreadableImage, decode
from extract.images.files import ImageFiles
from extract.images.reading import Reading
from extract.images.resizing import Edges, draw_thumbnail, edges_of, resize
from extract.options import HeatOptions
from extract.pictures.heat_maps import (
    enlarge,
    find_regions,
    peak,
    save_heat,
    save_overlay,
    save_thumbnail,
    scale_box,
    to_levels,
    weigh_maps,
)
from extract.report import show_progress
from extract.runtime import Extractor, cores, default_batch_size, device_name
from features.common.cli import EXIT_REJECTED
from features.common.commands import write_command
from features.common.errors import InputError, cause_of
from features.common.files import digest_file, hold, remove
from features.common.text import count_things, duration, first_few, make_console, size
from features.dataset.layout import ROLES
from features.store.gradients import (
    CAM,
    CAM_LOCK,
    CAM_RECORD,
    CAM_STAGING,
    GRADIENTS,
    Gradients,
    heat_path,
    read_gradients,
    thumbnail_path,
    write_cam,
)
from features.store.recipe import Recipe

#: Images that are decoded at a time, while the block before is computed.
_BLOCK = 32
#: The heat with the hottest colour is that which this share of the pairs do not reach, label by label.
_FULL_SHARE = 0.95
#: By how much the mean of the maps may miss the logit before a person is told, in logits.
_TOLERANCE = 0.05


@dataclass
class _Wanted:
    """An image to show, and its pairs by number.

    Set once it is read: `size`, `file`, its pictures' name, and where its edges lie in each map.
    """

    split: str
    image_id: str
    digest: str
    path: Path | None
    pairs: list[int] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    edges: list[Edges] = field(default_factory=list)
    file: str = ""


@dataclass(frozen=True)
class _Loaded:
    """A decoded image: uint8 pixels by backbone, its thumbnail, height and width; or why it is left out."""

    image: _Wanted
    pixels: Mapping[str, np.ndarray] = field(default_factory=dict)
    thumbnail: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    size: tuple[int, int] = (0, 0)
    reason: str = ""


@threadpool_limits.wrap(1, user_api="blas")  # of many small products: threads would wait for each other
def draw_heat(options: HeatOptions) -> int:
    """Write RUN/cam; an earlier one is replaced when the new one is whole.

    Returns:
        The exit code: 0 done, 3 done but some images are left out.

    Raises:
        InputError: there are no gradients or they are replaced meanwhile, no image can be shown, the backbones are not
            those of the features, or the folder cannot be written to.
    """
    console = make_console()
    start = time.monotonic()
    before = _digest_gradients(options.run)
    found = read_gradients(options.run)
    wanted = _list_images(found, options)
    console.print(f"{found.count} of {options.data} by {', '.join(found.recipes) or 'no backbone'}")
    with _renewing(options.run) as folder:
        with show_progress(console, len(wanted)) as advance:
            backbones = {name: _freeze(recipe, options.weights_dir) for name, recipe in found.recipes.items()}
            heats, left_out = _compute(found, wanted, backbones, folder, advance)
        shown = [image for image in wanted if image.file]
        if not shown:
            first, reason = next(iter(left_out.items()))
            raise InputError(
                f"none of the {len(wanted):,} images can be shown (first: {first}: {reason}). Check DATA; images that "
                "have changed have to be extracted and classified again."
            )
        error = _largest_error(found, heats)
        pairs, boxes = _draw(folder, found, shown, heats)
        images = [(image.split, image.image_id, image.file) for image in shown]
        write_cam(folder, found, (images, pairs, boxes), left_out, error)
        pictures = sum(path.stat().st_size for path in folder.rglob("*.*"))
        if _digest_gradients(options.run) != before:
            raise InputError(
                f"{options.run / GRADIENTS} was replaced meanwhile, so no heat map of it is kept. Run again, with the "
                "data set of what is there now."
            )
    console.print(
        f"{len(shown):,} thumbnails, {len(heats):,} heat maps, {len(boxes):,} boxes where {found.model} says yes, in "
        f"{options.run / CAM} ({size(pictures)}, {duration(time.monotonic() - start)})"
    )
    _say_what_is_missing(found, options.run, left_out, error, console.print)
    return EXIT_REJECTED if left_out else 0


def _digest_gradients(run: Path) -> bytes:
    """Digest what says what to draw; nothing where it cannot be read, which its reader reports."""
    try:
        return digest_file(run / GRADIENTS)
    except OSError:
        return b""


def _list_images(found: Gradients, options: HeatOptions) -> list[_Wanted]:
    """List the images of all pairs, each once, with their files."""
    split = options.split
    if split is None and found.pairs[0].split not in ROLES:  # of a folder that is no data set
        split = found.pairs[0].split
    images = find_images(options.data, split, options)
    paths = {(of.split, i): path for of in images for i, path in zip(of.image_ids, of.paths, strict=True)}
    # An image that was held out to test lies in the folder of train.
    elsewhere = {i: path for (_, i), path in paths.items()}
    wanted: dict[tuple[str, str], _Wanted] = {}
    for number, pair in enumerate(found.pairs):
        key = pair.split, pair.image_id
        path, other = paths.get(key), elsewhere.get(pair.image_id)
        if path is None and other is not None and digest_file(other).hex() == pair.digest:
            path = other
        wanted.setdefault(key, _Wanted(*key, pair.digest, path)).pairs.append(number)
    return list(wanted.values())


def _freeze(recipe: Recipe, weights_dir: Path | None) -> FrozenBackbone:
    """Find the backbone that features were extracted with."""
    if recipe.tuned:
        raise InputError(
            f"{recipe.backbone} was fine-tuned, and has a backbone for each fold: no heat maps are drawn of it. Run "
            "classify gradients again, which leaves it out."
        )
    if recipe.is_own_model and recipe.weights.endswith(".onnx"):
        raise InputError(
            f"{recipe.backbone} is the .onnx file {recipe.weights}, which is run as a whole: its features have no "
            "heat map. Choose a model without it, by classify gradients --model, or extract a backbone of Keras."
        )
    return freeze([recipe], weights_dir)


@contextmanager
def _renewing(run: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of RUN/cam when the block ends well."""
    target, staging, lock = run / CAM, run / CAM_STAGING, run / CAM_LOCK
    if target.is_symlink():
        raise InputError(f"{target} is a link, which a folder of heat maps would replace. Remove or rename it.")
    if target.exists() and not (target / CAM_RECORD).is_file():
        raise InputError(f"{target} holds no heat maps of Headbank ({CAM_RECORD} is missing). Remove or rename it.")
    with hold(lock):
        try:
            remove(staging)
            (staging / "thumbnails").mkdir(parents=True)
            yield staging
            remove(target)
            staging.replace(target)
        except OSError as error:
            raise InputError(f"{target} cannot be written: {cause_of(error)}") from None
        finally:
            with suppress(OSError):
                remove(staging)
            lock.unlink(missing_ok=True)  # while it is held, which `hold` allows


def _compute(
    found: Gradients,
    wanted: Sequence[_Wanted],
    backbones: Mapping[str, FrozenBackbone],
    folder: Path,
    advance: Callable[..., None],
) -> tuple[dict[int, list[np.ndarray]], dict[str, str]]:
    """Write the thumbnails, and compute by pair its heat maps, float32 (h, w), and by image why it is left out."""
    extractors = {name: compile_maps(backbone) for name, backbone in backbones.items()}
    heats: dict[int, list[np.ndarray]] = {}
    left_out: dict[str, str] = {}
    files = (f"{number:05d}" for number in range(len(wanted)))
    for loaded in _read(wanted, found.recipes):
        left_out |= {f"{entry.image.split}/{entry.image.image_id}": entry.reason for entry in loaded if entry.reason}
        whole = [entry for entry in loaded if not entry.reason]
        for entry in whole:
            entry.image.size, entry.image.file = entry.size, next(files)
            save_thumbnail(entry.thumbnail, thumbnail_path(folder, entry.image.file))
        for name, extractor in extractors.items() if whole else ():
            maps = extractor(np.stack([entry.pixels[name] for entry in whole]))
            for entry, *of_image in zip(whole, *maps, strict=True):
                edges = edges_of(found.recipes[name].fit, entry.size, found.recipes[name].input_size)
                entry.image.edges += [edges] * len(of_image)
                for pair in entry.image.pairs:
                    vector = found.vectors[name][pair]
                    heats.setdefault(pair, []).extend(weigh_maps(of_image, vector, found.recipes[name].pooling))
        advance(len(loaded))
    return heats, left_out


def compile_maps(backbone: FrozenBackbone) -> Extractor:
    """Compile a backbone of one kind of features without its pooling: uint8 (n, S, S, 3) to float32 maps (n, h, w, C).

    Raises:
        InputError: the backbone pools in a way that leaves no map.
    """
    batch_size = min(default_batch_size(device_name()), _BLOCK)
    return Extractor(
        lambda: fold_batch_norms(build_maps(backbone)), backbone.preprocessing, backbone.input_size, batch_size
    )


def _read(wanted: Sequence[_Wanted], recipes: Mapping[str, Recipe]) -> Iterator[list[_Loaded]]:
    """Decode the images a block at a time; the next block is read while a block is computed."""
    files = ImageFiles([image.path for image in wanted if image.path is not None])
    blocks = [wanted[start : start + _BLOCK] for start in range(0, len(wanted), _BLOCK)]
    with ThreadPoolExecutor(cores(), "reader") as readers:
        ahead = [readers.submit(_load, image, recipes, files) for image in blocks[0]]
        for block in (*blocks[1:], ()):
            current, ahead = ahead, [readers.submit(_load, image, recipes, files) for image in block]
            yield [future.result() for future in current]


def _load(image: _Wanted, recipes: Mapping[str, Recipe], files: ImageFiles) -> _Loaded:
    """Read one image, if it is still the file that its features are of, as the recipes of the backbones say."""
    if image.path is None:
        return _Loaded(image, reason="DATA does not have it")
    try:
        _, encoded, content = files.read(image.path)
        if content.hex() != image.digest:
            return _Loaded(image, reason="it has changed since its features were extracted")
        readings = {name: Reading.of(recipe) for name, recipe in recipes.items()}
        decoded = {reading: decode(encoded, image.image_id, reading) for reading in {*readings.values()} or {Reading()}}
    except OSError as error:
        return _Loaded(image, reason=f"the file cannot be read: {error.strerror}")
    except MemoryError:
        return _Loaded(image, reason="there is not enough memory to decode it")
    except UnreadableImage as error:
        return _Loaded(image, reason=str(error))
    sizes = {(reading, recipes[name].input_size) for name, reading in readings.items()}
    resized = {(reading, size): resize(decoded[reading][0], size, reading.fit) for reading, size in sizes}
    pixels, facts = next(iter(decoded.values()))
    by_backbone = {name: resized[reading, recipes[name].input_size] for name, reading in readings.items()}
    return _Loaded(image, by_backbone, draw_thumbnail(pixels), (facts.height, facts.width))


def _largest_error(found: Gradients, heats: Mapping[int, Sequence[np.ndarray]]) -> float:
    """By how much the means of the heat maps and the rests miss the logits at the most."""
    means = ((found.pairs[number], sum(float(heat.mean()) for heat in of_pair)) for number, of_pair in heats.items())
    return max((abs(mean + pair.rest - pair.logit) for pair, mean in means), default=0.0)


def _draw(
    folder: Path, found: Gradients, shown: Sequence[_Wanted], heats: Mapping[int, Sequence[np.ndarray]]
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Draw heat maps and overlays; return the rows of the tables of pairs and of boxes."""
    for kind in ("heat", "overlays") if heats else ():
        for label in {pair.label for pair in found.pairs}:
            (folder / kind / str(label)).mkdir(parents=True)
    full = _full_heat(found, shown, heats)
    pairs: list[tuple[object, ...]] = []
    boxes: list[tuple[object, ...]] = []
    for image in shown:
        with Image.open(thumbnail_path(folder, image.file)) as stored:
            thumbnail = np.asarray(stored.convert("RGB"))
        for number in image.pairs:
            pair = found.pairs[number]
            of_image = (image.split, image.image_id, found.label_names[pair.label])
            score = np.float32(pair.score)
            pairs += [
                (*of_image, *reason, score, int(pair.positive), image.file) for reason in pair.reasons or [("", "")]
            ]
            if not heats:
                continue
            heat = enlarge(heats[number], thumbnail.shape[:2], image.edges)
            regions = find_regions(heat) if pair.positive else []
            # The few pairs beyond the common scale have one of their own, so that none is one bright blot.
            levels = to_levels(heat, max(full[pair.label], peak(heat)))
            save_heat(levels, heat_path(folder, pair.label, image.file))
            path = folder / "overlays" / str(pair.label) / f"{image.file}.jpg"
            save_overlay(thumbnail, levels, [region.box for region in regions], path)
            boxes += [
                (*of_image, *scale_box(region.box, heat.shape, image.size), score, np.float32(region.heat))
                for region in regions
            ]
    return pairs, boxes


def _full_heat(
    found: Gradients, shown: Sequence[_Wanted], heats: Mapping[int, Sequence[np.ndarray]]
) -> dict[int, float]:
    """Say, per label, which heat above an image's median has the hottest colour, above 0.

    One scale for all images: an image without anything hot stays pale, which a scale of its own would hide.
    """
    peaks: dict[int, list[float]] = {}
    for image in shown if heats else ():
        for number in image.pairs:
            heat = enlarge(heats[number], (32, 32), image.edges)
            peaks.setdefault(found.pairs[number].label, []).append(peak(heat))
    return {label: float(np.quantile(of_label, _FULL_SHARE)) or 1.0 for label, of_label in peaks.items()}


def _say_what_is_missing(
    found: Gradients, run: Path, left_out: Mapping[str, str], error: float, say: Callable[[str], None]
) -> None:
    """Say what has no heat, which members have no part in it, and which images are left out."""
    if found.no_heat:
        others = "no model of the run"
        if found.instead:
            command = write_command("classify gradients", run, "--model", found.instead[0])
            others = f"{command} (or {first_few(found.instead[1:]) or 'no other'}; of predictions: classify predict)"
        say(f"without heat: {found.no_heat}. With heat: {others}")
    elif found.left_out:
        say(f"without a heat map, so left out: {', '.join(found.left_out)} ({1 - found.covered:.0%} of the shares)")
    if error > _TOLERANCE:
        why = "the backbones give other features on this machine than those that the run learnt from"
        if any(len(recipe.views) > 1 for recipe in found.recipes.values()):
            why = "they show the image as it is, and the run reads the mean over several views of it"
        say(f"warning: the heat maps miss the logits of {found.model} by up to {error:.2g}: {why}")
    if left_out:
        first, reason = next(iter(left_out.items()))
        say(f"not shown: {count_things(len(left_out), 'image')} (first: {first}: {reason}): {CAM_RECORD} lists them")
