"""Which images are whose, which extraction they are of, and what each shard found, as its record keeps it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

from extract.extraction import Work
from extract.pipeline import UNIT_IMAGES, Found, Images
from features.common.errors import InputError
from features.common.files import digest
from features.shards import ShardedRun, ShardRecords
from features.store.images_table import ImageFacts, Rejection, Stamp


@dataclass(frozen=True)
class Shard:
    """One of the shares, 1 to `count`, into which the images of each split are divided."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the value of --shard."""
        found = re.fullmatch(r"([1-9]\d{0,5})/([1-9]\d{0,5})", text, re.ASCII)
        if not found or int(found[1]) > int(found[2]):
            raise InputError(f"--shard {text!r}: expected K/N, the shard K of N, from 1/N to N/N; such as 3/16.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def share(self, images: Sequence[Images]) -> list[Images]:
        """Its images of each split: every count-th unit."""
        shares = []
        for split, image_ids, paths in images:
            units = range(self.number - 1, -(-len(image_ids) // UNIT_IMAGES), self.count)
            places = list(chain.from_iterable(_places(unit, len(image_ids)) for unit in units))
            shares.append(Images(split, [image_ids[at] for at in places], [paths[at] for at in places]))
        return shares


def _places(unit: int, count: int) -> range:
    """The places of a unit's images in a split of so many."""
    return range(unit * UNIT_IMAGES, min((unit + 1) * UNIT_IMAGES, count))


def plan_run(work: Work, count: int, command: Sequence[str]) -> ShardedRun:
    """The extraction of some work by so many shards, with the words of their command, but for --shard, DATA first."""
    recipes, max_pixels = work.recipes(), work.options.reading.max_pixels
    image_ids = {split.split: list(split.image_ids) for split in work.images}
    text = json.dumps([count, [recipe.fingerprint for recipe in recipes], max_pixels, image_ids])
    attributes = [recipe.attributes() for recipe in recipes]
    return ShardedRun(digest(text.encode()).hex(), count, list(image_ids), attributes, max_pixels, list(command))


def keep_found(cache: Path, run: ShardedRun, shard: Shard, found: Iterable[Found]) -> None:
    """Write the record of a shard that has ended: what it found in each split."""
    record = {
        of_split.images.split: {
            "image_ids": list(of_split.images.image_ids),
            "digests": {image_id: known.hex() for image_id, known in of_split.digests.items()},
            "stamps": {image_id: astuple(stamp) for image_id, stamp in of_split.stamps.items()},
            "rejected": [astuple(rejection) for rejection in of_split.rejected],
            "lost_facts": {image_id: astuple(facts) for image_id, facts in of_split.lost_facts.items()},
        }
        for of_split in found
    }
    ShardRecords(cache).write(run, shard.number, record)


def changed_shards(work: Work, run: ShardedRun) -> list[int]:
    """Numbers of the shards that have ended and of which an image has another size or other times than they saw.

    Raises:
        InputError: a record is not what was written; the message has the command that makes it again.
    """
    records, changed = ShardRecords(work.options.cache), []
    for number in records.done(run):
        record = records.read_one(run, number)
        for split, image_ids, paths in Shard(number, run.count).share(work.images):
            stamps = {image_id: Stamp(*stamp) for image_id, stamp in record[split]["stamps"].items()}
            if any(_stamp_of(path) != stamps.get(image_id) for image_id, path in zip(image_ids, paths, strict=True)):
                changed.append(number)
                break
    return changed


def _stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None where there is none."""
    try:
        return Stamp.of(path)
    except OSError:
        return None


def read_found(cache: Path, run: ShardedRun) -> list[Found]:
    """Read what all shards, which have ended, found in each split.

    Raises:
        InputError: a record is not what was written; the message has the command that makes it again.
    """
    records = ShardRecords(cache).read(run)
    return [_merge([_read_found(split, record[split]) for record in records]) for split in run.splits]


def _read_found(split: str, record: Mapping[str, Any]) -> Found:
    """Read what a shard found in a split."""
    return Found(
        Images(split, record["image_ids"], ()),
        {image_id: bytes.fromhex(known) for image_id, known in record["digests"].items()},
        {image_id: Stamp(*stamp) for image_id, stamp in record["stamps"].items()},
        [Rejection(*rejection) for rejection in record["rejected"]],
        {image_id: ImageFacts(*facts) for image_id, facts in record["lost_facts"].items()},
    )


def _merge(shards: Sequence[Found]) -> Found:
    """Put together what all shards found in a split, in the order of the data set."""
    ids = [iter(found.images.image_ids) for found in shards]
    total = sum(len(found.images.image_ids) for found in shards)
    image_ids = [next(ids[place // UNIT_IMAGES % len(shards)], "") for place in range(total)]
    digests = {image_id: known for found in shards for image_id, known in found.digests.items()}
    rejected = {rejection.image_id: rejection for found in shards for rejection in found.rejected}
    return Found(
        Images(shards[0].images.split, image_ids, ()),
        {image_id: digests[image_id] for image_id in image_ids if image_id in digests},
        {image_id: stamp for found in shards for image_id, stamp in found.stamps.items()},
        [rejected[image_id] for image_id in image_ids if image_id in rejected],
        {image_id: facts for found in shards for image_id, facts in found.lost_facts.items()},
    )
