"""Extract the last feature maps of chosen images into CACHE/{split}/{backbone}.maps.h5."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from extract.extraction import default_batch_size
from extract.feature_maps import build_maps
from extract.folding import fold_batch_norms
from extract.frozen import FrozenBackbone
from extract.images import UnreadableImage, decode, draw_thumbnail, resize
from extract.jobs import Images
from extract.runtime import Extractor, backend_name, device_name
from features.assembly import Provenance
from features.errors import InputError
from features.lock import hold
from features.maps import MapRows, MapsWriter, describe_maps, maps_path, read_blocks
from features.recipe import Recipe
from features.rejections import Rejection


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
        kept: maps that were there already.
        files: the files of maps that hold the images wanted.
        rejected: the images that could not be read.
    """

    extracted: int = 0
    kept: int = 0
    files: list[Path] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True)
class _Picture:
    """One decoded image: id, digest, pixels by input size, thumbnail, height and width."""

    image_id: str
    digest: bytes
    pixels: dict[int, np.ndarray]
    thumbnail: np.ndarray
    size: tuple[int, int]


class CompiledMaps:
    """Compiles every backbone without its pooling once, when the first image needs it, and keeps it.

    Args:
        batch_size: images a batch; None: chosen by the device.
    """

    def __init__(self, batch_size: int | None = None) -> None:
        self._batch_size = batch_size
        self._compiled: dict[str, Extractor] = {}

    def __call__(self, backbone: FrozenBackbone) -> Extractor:
        """Give the function from uint8 (n, S, S, 3) to float32 (n, h, w, D).

        Raises:
            InputError: the backbone pools in a way that leaves no map.
        """
        if backbone.name not in self._compiled:
            model = build_maps(backbone)
            batch_size = self._batch_size or default_batch_size(device_name())
            self._compiled[backbone.name] = Extractor(
                fold_batch_norms(model), backbone.preprocessing, backbone.input_size, batch_size
            )
        return self._compiled[backbone.name]


def extract_maps(
    wanted: Sequence[Wanted], cache: Path, workers: int, compiled: CompiledMaps, say: Callable[[str], None]
) -> MapsReport:
    """Bring the maps of some images up to date.

    Maps of the same bytes and the same recipe are kept, those of other images too. Each file is whole or absent; what
    is stopped before its end begins anew.

    Args:
        wanted: split by split.
        cache: folder of the cache.
        workers: threads that read and decode.
        compiled: keeps the compiled backbones.
        say: prints a line.

    Raises:
        InputError: another process works on the same file, a file is damaged, a backbone has no map, a map is not
            finite in float16, or the disk is full.
    """
    report = MapsReport()
    with ExitStack() as stack:
        for part in wanted:
            for name in part.backbones:
                path = maps_path(cache, part.images.split, name)
                stack.enter_context(hold(path.with_name(f"{path.name}.lock")))
        readers = stack.enter_context(ThreadPoolExecutor(workers, "reader"))
        for part in wanted:
            _extract_split(part, cache, readers, compiled, say, report)
    return report


def _extract_split(
    part: Wanted,
    cache: Path,
    readers: ThreadPoolExecutor,
    compiled: CompiledMaps,
    say: Callable[[str], None],
    report: MapsReport,
) -> None:
    """Renew the files of one split; see `extract_maps`."""
    split = part.images.split
    paths = dict(zip(part.images.image_ids, part.images.paths, strict=True))
    digests = dict(zip(paths, readers.map(_digest, paths.values()), strict=True))
    with ExitStack() as stack:
        work = []
        for name, (backbone, recipe) in part.backbones.items():
            file = _File(maps_path(cache, split, name), backbone, recipe, digests, say)
            report.files.append(file.path)
            report.kept += len(digests) - len(file.lacking)
            if file.lacking:
                file.open(stack)
                work.append(file)
        lacking = [image_id for image_id in paths if any(image_id in file.lacking for file in work)]
        sizes = {file.backbone.input_size for file in work}
        for pictures in _read(lacking, paths, sizes, split, readers, report):
            for file in work:
                report.extracted += file.compute(pictures, compiled)


class _File:
    """One file of maps: what it holds, what it lacks, and its renewal."""

    def __init__(
        self,
        path: Path,
        backbone: FrozenBackbone,
        recipe: Recipe,
        digests: Mapping[str, bytes],
        say: Callable[[str], None],
    ) -> None:
        self.path = path
        self.backbone = backbone
        self._recipe = recipe
        self._previous = describe_maps(path) if path.exists() else None
        if self._previous and self._previous.fingerprint != recipe.fingerprint:
            say(
                f"{path} was extracted differently ({self._previous.recipe.differences(recipe)}): "
                f"its {len(self._previous.digests)} maps are replaced."
            )
            self._previous = None
        known = self._previous.digests if self._previous else {}
        self.lacking = {image_id for image_id, digest in digests.items() if known.get(image_id) != digest}
        self._kept = [image_id for image_id in known if image_id not in self.lacking]

    def open(self, stack: ExitStack) -> None:
        """Begin the new file with what is kept of the old one."""
        provenance = Provenance(version("keras"), backend_name(), device_name())
        self._writer = stack.enter_context(MapsWriter(self.path, self._recipe, provenance))
        if self._previous:
            for rows in read_blocks(self._previous, self._kept):
                self._writer.append(rows)

    def compute(self, pictures: Sequence[_Picture], compiled: CompiledMaps) -> int:
        """Compute and write the maps of those pictures that the file lacks; return their number."""
        mine = [picture for picture in pictures if picture.image_id in self.lacking]
        if not mine:
            return 0
        extractor = compiled(self.backbone)
        size, step = self.backbone.input_size, extractor.batch_size
        for start in range(0, len(mine), step):
            batch = mine[start : start + step]
            maps = extractor(np.stack([picture.pixels[size] for picture in batch]))
            with np.errstate(over="ignore"):  # what float16 cannot hold becomes infinite, and is refused by name
                rows = MapRows(
                    tuple(picture.image_id for picture in batch),
                    tuple(picture.digest for picture in batch),
                    maps.astype(np.float16),
                    np.stack([picture.thumbnail for picture in batch]),
                    np.array([picture.size for picture in batch], np.int32),
                )
            self._writer.append(rows)
        return len(mine)


def _digest(path: Path) -> bytes:
    """BLAKE2b-128 of a file's bytes, as in the cache of features; empty where it cannot be read."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return b""


def _read(
    image_ids: Sequence[str],
    paths: Mapping[str, Path],
    sizes: set[int],
    split: str,
    readers: ThreadPoolExecutor,
    report: MapsReport,
) -> Iterator[list[_Picture]]:
    """Decode images, a bounded number at a time; those that cannot be read go to the report."""

    def load(image_id: str) -> _Picture | Rejection:
        path = paths[image_id]
        try:
            encoded = path.read_bytes()
            pixels, facts = decode(encoded)
        except (UnreadableImage, OSError) as error:
            return Rejection(image_id, f"{split}/{image_id}{path.suffix}", str(error))
        digest = hashlib.blake2b(encoded, digest_size=16).digest()
        resized = {size: resize(pixels, size) for size in sizes}
        return _Picture(image_id, digest, resized, draw_thumbnail(pixels), (facts.height, facts.width))

    step = 64
    for start in range(0, len(image_ids), step):
        loaded = list(readers.map(load, image_ids[start : start + step]))
        report.rejected += [entry for entry in loaded if isinstance(entry, Rejection)]
        yield [entry for entry in loaded if isinstance(entry, _Picture)]


def check_recipe(backbone: FrozenBackbone, recipe: Recipe) -> None:
    """Refuse to make maps that do not go with the features: other weights, another preprocessing.

    Args:
        backbone: as it is found on this machine.
        recipe: of the features.

    Raises:
        InputError: their fingerprints differ; the message says in what.
    """
    ours = backbone.recipe(recipe.precision.partition(" stored as ")[2] or "float32")
    if ours.fingerprint != recipe.fingerprint:
        raise InputError(
            f"the features of {recipe.backbone} were extracted otherwise than its maps would be "
            f"({recipe.differences(ours)}). Bring back what they were extracted with, or extract them anew."
        )
