"""Renew one file of maps: what of it goes with the features, what it lacks, and the maps of that."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from extract.backbones.build import FrozenBackbone
from extract.backbones.folding import fold_batch_norms
from extract.extraction import default_batch_size
from extract.feature_maps import build_maps
from extract.runtime import Extractor, device_name
from features.common.keras_import import backend_name
from features.store.assembly import Provenance
from features.store.maps import MapRows, check_width, describe_maps, read_blocks
from features.store.maps_writer import MapsWriter
from features.store.recipe import Recipe


@dataclass(frozen=True)
class Picture:
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


class Renewal:
    """One file of maps: what it holds, what it lacks, and its renewal.

    Args:
        path: the file.
        backbone: whose maps it holds.
        recipe: of the features.
        digests: of the images wanted, as they are now.
        features: digests of the files that the features are of, and how many features an image has.
        say: prints a line.

    Attributes:
        features: digests of the files that the features are of.
        matching: the images wanted that are what the features are of.
        lacking: those of them whose map is missing, or of another file.
        kept: number of images wanted whose map is of the file that the features are of.

    Raises:
        InputError: the file is damaged, or its maps have other channels than the features.
    """

    def __init__(
        self,
        path: Path,
        backbone: FrozenBackbone,
        recipe: Recipe,
        digests: Mapping[str, bytes],
        features: tuple[Mapping[str, bytes], int],
        say: Callable[[str], None],
    ) -> None:
        self.path = path
        self.backbone = backbone
        self.features, width = features
        self._recipe = recipe
        self._say = say
        self._previous = describe_maps(path) if path.exists() else None
        self._outdated = self._previous is not None and self._previous.fingerprint != recipe.fingerprint
        known: Mapping[str, bytes] = {}
        if self._previous is not None and not self._outdated:
            check_width(self._previous, width)
            known = self._previous.digests
        self.matching = {image_id for image_id, digest in digests.items() if self.features.get(image_id) == digest}
        self.lacking = {image_id for image_id in self.matching if known.get(image_id) != self.features[image_id]}
        self.kept = sum(image_id in known and known[image_id] == self.features.get(image_id) for image_id in digests)
        self._kept = [image_id for image_id in known if image_id not in self.lacking]

    def open(self, stack: ExitStack) -> None:
        """Begin the new file with what is kept of the old one."""
        if self._previous and self._outdated:
            self._say(
                f"{self.path} was extracted differently ({self._previous.recipe.differences(self._recipe)}): "
                f"its {len(self._previous.digests)} maps are replaced."
            )
        provenance = Provenance(version("keras"), backend_name(), device_name())
        self._writer = stack.enter_context(MapsWriter(self.path, self._recipe, provenance))
        if self._previous and self._kept:
            for rows in read_blocks(self._previous, self._kept):
                self._writer.append(rows)

    def compute(self, pictures: Sequence[Picture], compiled: CompiledMaps) -> int:
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
