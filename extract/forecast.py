"""What an extraction will take, time and room, by what its first images took."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.report import Report
from features.common.text import count_things, duration, size
from features.store.cache_file import CacheFile
from features.store.recipe import Recipe

if TYPE_CHECKING:
    from extract.extraction import Work

#: Images that are measured before the rest is foretold.
MEASURED = 128


class Forecast:
    """What is left of an extraction.

    Args:
        work: what it does.

    Attributes:
        missing: images without rows, by backbone, as far as ids tell: without those that changed, with those that a run
            which was stopped has in parts.
        images: all images of all splits.
    """

    def __init__(self, work: "Work") -> None:
        self._options = work.options
        self._told = False
        self.images = sum(len(split.image_ids) for split in work.images)
        self.missing = dict.fromkeys((backbone.name for backbone in work.backbones), 0)
        for backbone in work.backbones:
            recipes = backbone.recipes(work.options.storage, work.options.reading)
            for name, image_ids, _ in work.images:
                there = [_ids_of(work.options.cache / name / f"{recipe.backbone}.h5", recipe) for recipe in recipes]
                self.missing[backbone.name] += sum(not all(known in ids for ids in there) for known in image_ids)

    def tell(self, report: Report, say: Callable[[str], object]) -> None:
        """Say once what is left, when enough images are done to tell, unless that is hardly more."""
        measured = all(report.backbones[name].images >= MEASURED for name, count in self.missing.items() if count)
        if measured and not self._told:
            self._told = True
            if max(self.missing.values()) > 4 * MEASURED:
                for line in self.lines(report):
                    say(line)

    def lines(self, report: Report, done: bool = True) -> list[str]:
        """Say how long the missing images take, and what room; and warn where the disk does not have it.

        Args:
            report: what was measured: every backbone with missing images has run.
            done: whether what was measured is some of what is missing.
        """
        left = {name: max(0, count - report.backbones[name].images * done) for name, count in self.missing.items()}
        images = max(left.values())
        if not images:
            return [f"forecast: all {self.images:,} images have their rows."]
        device = sum(
            count * report.backbones[name].seconds / report.backbones[name].images
            for name, count in left.items()
            if count
        )
        decoding = (report.stages["read+decode"] + report.stages["resize"]) / report.decoded / self._options.workers
        seconds = max(device, images * decoding)
        of_image = {
            name: sum(of.widths) * len(self._options.reading.views) * np.dtype(self._options.storage).itemsize
            for name, of in report.backbones.items()
        }
        room = sum(of_image[name] * count for name, count in self.missing.items())
        folder = self._options.cache.absolute()
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        rate, compiling = images / seconds, 0.0 if done else report.stages["compile"]
        lines = [
            f"forecast: {count_things(images, 'image')} left at {rate:,.1f} a second: some "
            f"{duration(seconds + compiling)}; {folder} takes {size(room)} more, "
            f"{size(2 * room)} while it is at work, of {size(free)} that are free."
        ]
        if free < 2 * room:
            lines.append("warning: the disk has too little room. Make room, or use --dtype float16 or another --cache.")
        return lines


def _ids_of(path: Path, recipe: Recipe) -> set[str]:
    """The ids of the rows of a cache file that are of a recipe; none where there is no such file."""
    if not path.exists():
        return set()
    file = CacheFile.open(path)
    return {*file.index} if file.fingerprint == recipe.fingerprint else set()
