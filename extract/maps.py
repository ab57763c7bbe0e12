"""Extract the last feature maps of chosen images into CACHE/{split}/{backbone}.maps.h5."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from extract.backbones.build import FrozenBackbone
from extract.images import UnreadableImage, decode, draw_thumbnail, resize
from extract.maps_renewal import CompiledMaps, Picture, Renewal
from extract.pipeline import Images
from features.common.errors import InputError
from features.common.files import digest, digest_file, hold
from features.store.cache import FeatureCache
from features.store.images_table import Rejection
from features.store.maps import maps_path
from features.store.recipe import Recipe


@dataclass(frozen=True)
class Wanted:
    """The images of one split whose maps are wanted, and by which backbones.

    Attributes:
        images: the images, at least one.
        backbones: by name, the backbone and the recipe of its cached features.
    """

    images: Images
    backbones: Mapping[str, tuple[FrozenBackbone, Recipe]]


@dataclass
class MapsReport:
    """What was done.

    Attributes:
        extracted: maps computed, over all splits and backbones.
        kept: maps that were there already, of the files that the features are of.
        files: the files of maps that hold the images wanted.
        rejected: the images that could not be read.
        mismatched: the images that are no longer, or not yet, what the features are of.
    """

    extracted: int = 0
    kept: int = 0
    files: list[Path] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    mismatched: list[Rejection] = field(default_factory=list)


def extract_maps(
    wanted: Sequence[Wanted], cache: Path, workers: int, compiled: CompiledMaps, say: Callable[[str], None]
) -> MapsReport:
    """Bring the maps of some images up to date.

    Maps are made of images whose bytes are those of the features. Maps of the features' bytes and recipe are kept,
    whatever the images are now, and those of images that are not wanted too. Each file is whole or absent; what is
    stopped before its end begins anew.

    Args:
        wanted: split by split.
        cache: folder of the cache.
        workers: threads that read and decode.
        compiled: keeps the compiled backbones.
        say: prints a line.

    Raises:
        InputError: no image is what the features are of, another process works on the same file, a file is damaged, a
            backbone has no map, a map is not finite in float16, or the disk is full.
    """
    report = MapsReport()
    with ExitStack() as stack:
        for part in wanted:
            for name in part.backbones:
                path = maps_path(cache, part.images.split, name)
                stack.enter_context(hold(path.with_name(f"{path.name}.lock")))
        readers = stack.enter_context(ThreadPoolExecutor(workers, "reader"))
        plans = [_plan(part, FeatureCache(cache), readers, say, report) for part in wanted]
        if not any(file.matching for files in plans for file in files):
            first = (report.mismatched + report.rejected)[0]
            raise InputError(
                f"none of the {sum(len(part.images.image_ids) for part in wanted):,} images is the file that its "
                f"features are of (first: {first.path}: {first.reason}): maps of them would show something else. "
                f"{renewal(cache, wanted)}"
            )
        for part, files in zip(wanted, plans, strict=True):
            _extract_split(part, files, readers, compiled, report)
    return report


def renewal(cache: Path, wanted: Sequence[Wanted]) -> str:
    """Say what makes the features go with the images again."""
    names = {part.images.split for part in wanted} - {"train", "test"}
    split = "".join(f" --split {name}" for name in sorted(names))
    return (
        f"Bring the features up to date, with the options that made them: scripts/extract.sh DATA{split} "
        f"--cache {cache}; then run again."
    )


def _plan(
    part: Wanted, cache: FeatureCache, readers: ThreadPoolExecutor, say: Callable[[str], None], report: MapsReport
) -> list[Renewal]:
    """Compare the images of one split with features and maps; write nothing."""
    split = part.images.split
    paths = dict(zip(part.images.image_ids, part.images.paths, strict=True))
    digests = dict(zip(paths, readers.map(_digest, paths.values()), strict=True))
    files = []
    for name, (backbone, recipe) in part.backbones.items():
        cached = cache.open(split, name)
        file = Renewal(maps_path(cache.root, split, name), backbone, recipe, digests, (cached.index, cached.width), say)
        report.files.append(file.path)
        report.kept += file.kept
        files.append(file)
    others = [image_id for image_id in paths if any(image_id not in file.matching for file in files)]
    unreadable = readers.map(lambda image_id: _why_unreadable(paths[image_id]), others)
    for image_id, reason in zip(others, unreadable, strict=True):
        place = f"{split}/{image_id}{paths[image_id].suffix}"
        if reason is not None:
            report.rejected.append(Rejection(image_id, place, reason))
            continue
        names = [file.backbone.name for file in files if image_id not in file.matching]
        known = any(image_id in file.features for file in files if image_id not in file.matching)
        what = "was another file when its features were extracted" if known else "has no features"
        report.mismatched.append(Rejection(image_id, place, f"it {what} by {', '.join(names)}"))
    return files


def _extract_split(
    part: Wanted, files: Sequence[Renewal], readers: ThreadPoolExecutor, compiled: CompiledMaps, report: MapsReport
) -> None:
    """Renew the files of one split that lack something; see `extract_maps`."""
    paths = dict(zip(part.images.image_ids, part.images.paths, strict=True))
    with ExitStack() as stack:
        work = [file for file in files if file.lacking]
        for file in work:
            file.open(stack)
        digests = {image_id: file.features[image_id] for file in work for image_id in file.lacking}
        lacking = {image_id: digests[image_id] for image_id in paths if image_id in digests}
        sizes = {file.backbone.input_size for file in work}
        for pictures in _read(lacking, paths, sizes, part.images.split, readers, report):
            for file in work:
                report.extracted += file.compute(pictures, compiled)


def _digest(path: Path) -> bytes:
    """BLAKE2b-128 of a file's bytes, as in the cache of features; empty where it cannot be read."""
    try:
        return digest_file(path)
    except OSError:
        return b""


def _why_unreadable(path: Path) -> str | None:
    """Say why an image cannot be read; None where it can."""
    try:
        decode(path.read_bytes())
    except (UnreadableImage, OSError) as error:
        return str(error)
    return None


def _read(
    digests: Mapping[str, bytes],
    paths: Mapping[str, Path],
    sizes: set[int],
    split: str,
    readers: ThreadPoolExecutor,
    report: MapsReport,
) -> Iterator[list[Picture]]:
    """Decode images of known digests, a bounded number at a time; those that cannot be had go to the report."""

    def load(image_id: str) -> Picture | Rejection:
        path = paths[image_id]
        place = f"{split}/{image_id}{path.suffix}"
        try:
            encoded = path.read_bytes()
            pixels, facts = decode(encoded)
        except (UnreadableImage, OSError) as error:
            return Rejection(image_id, place, str(error))
        content = digest(encoded)
        if content != digests[image_id]:
            return Rejection(image_id, place, "it was written anew meanwhile")
        resized = {size: resize(pixels, size) for size in sizes}
        return Picture(image_id, content, resized, draw_thumbnail(pixels), (facts.height, facts.width))

    step = 64
    image_ids = list(digests)
    for start in range(0, len(image_ids), step):
        loaded = list(readers.map(load, image_ids[start : start + step]))
        report.rejected += [entry for entry in loaded if isinstance(entry, Rejection)]
        yield [entry for entry in loaded if isinstance(entry, Picture)]


def check_recipe(backbone: FrozenBackbone, recipe: Recipe) -> None:
    """Refuse to make maps that do not go with the features: other weights, another preprocessing.

    Args:
        backbone: as it is found on this machine.
        recipe: of the features.

    Raises:
        InputError: their fingerprints differ; the message says in what.
    """
    ours = backbone.recipe(recipe.storage)
    if ours.fingerprint != recipe.fingerprint:
        raise InputError(
            f"the features of {recipe.backbone} were extracted otherwise than its maps would be "
            f"({recipe.differences(ours)}). Bring back what they were extracted with, or extract them anew."
        )
