"""What the shards of an extraction leave beside their parts, in CACHE/.shards: what it is, and a record of each."""

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any, Self

from extract.extraction import Work
from extract.pipeline import UNIT_IMAGES, Found, Images
from features.common.commands import join_words, write_command
from features.common.errors import InputError
from features.common.files import digest, hold, read_record, replacing
from features.common.text import count_things
from features.store.images_table import ImageFacts, Rejection, Stamp
from features.store.recipe import Recipe


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


@dataclass(frozen=True)
class ShardedRun:
    """An extraction by shards.

    Attributes:
        digest: of its number of shards, its images by id, its recipes and the size at which images are rejected.
        count: number of shards.
        splits: names of the splits.
        recipes: of the rows, as they are in the attributes of a cache file.
        max_pixels: images with more pixels are rejected.
        command: the words of the command of a shard, but for --shard.
    """

    digest: str
    count: int
    splits: Sequence[str]
    recipes: Sequence[Mapping[str, Any]]
    max_pixels: int
    command: Sequence[str]

    @classmethod
    def of(cls, work: Work, count: int, command: Sequence[str]) -> Self:
        """The extraction of some work."""
        recipes = [recipe.attributes() for recipe in work.recipes()]
        image_ids = {split.split: split.image_ids for split in work.images}
        max_pixels = work.options.reading.max_pixels
        found = _digest(count, recipes, max_pixels, image_ids)
        return cls(found, count, list(image_ids), recipes, max_pixels, list(command))

    def command_of(self, number: int) -> str:
        """The command that runs a shard."""
        return write_command("scripts/extract.sh", *self.command, "--shard", Shard(number, self.count))

    def is_of(self, image_ids: Mapping[str, Sequence[str]]) -> bool:
        """Whether these are its images, by split."""
        return self.digest == _digest(self.count, self.recipes, self.max_pixels, image_ids)


def _digest(
    count: int, recipes: Sequence[Mapping[str, Any]], max_pixels: int, image_ids: Mapping[str, Sequence[str]]
) -> str:
    """Digest what makes an extraction by shards, as `ShardedRun` says it: 32 hexadecimal digits."""
    fingerprints = [Recipe.from_attributes(recipe).fingerprint for recipe in recipes]
    text = json.dumps([count, fingerprints, max_pixels, {split: list(ids) for split, ids in image_ids.items()}])
    return digest(text.encode()).hex()


class ShardRecords:
    """The records in a cache: of one extraction at a time, from the start of its first shard to its assembly.

    Args:
        cache: the cache's folder.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.folder = cache / ".shards"
        self._run = self.folder / "run.json"

    def run(self) -> ShardedRun | None:
        """The extraction whose shards are there; None where there is none."""
        if not self._run.exists():
            return None
        remedy = f"Remove {self.folder}, and run the shards again: their rows are kept."
        names = [field.name for field in fields(ShardedRun)]
        record = read_record(self._run, remedy, *names)
        run = ShardedRun(**{name: record[name] for name in names})
        if self._seal(run) != record.get("seal"):
            raise InputError(f"{self._run} is damaged. {remedy}")
        return run

    def begin(self, run: ShardedRun) -> None:
        """Note the extraction that a shard is part of.

        Raises:
            InputError: there are records of another one.
        """
        with hold(self._cache / ".shards.lock", wait=True):
            other = self.run()
            if other and other.digest == run.digest:
                return
            if other and (done := self.done(other)):
                raise InputError(
                    f"{self._cache} has {len(done)} of {count_things(other.count, 'shard')} of another extraction, "
                    f"{_difference(other, run)}. Finish that one first: {self.next_command(other)}; or give it up, "
                    f"which keeps its rows: {join_words('rm', '-r', self.folder)}"
                )
            with replacing(self._run) as temporary:
                temporary.write_text(json.dumps({**asdict(run), "seal": self._seal(run)}), encoding="utf-8")

    def done(self, run: ShardedRun) -> list[int]:
        """Numbers of the shards of an extraction that have ended."""
        return [number for number in range(1, run.count + 1) if self._path(run, number).exists()]

    def missing(self, run: ShardedRun) -> list[int]:
        """Numbers of the shards of an extraction that have not ended."""
        return sorted(set(range(1, run.count + 1)) - set(self.done(run)))

    def next_command(self, run: ShardedRun) -> str:
        """The command that an extraction waits for: its first missing shard, or the assembly."""
        for number in self.missing(run):
            return run.command_of(number)
        return write_command("extract assemble", self._cache)

    def write(self, run: ShardedRun, shard: Shard, found: Iterable[Found]) -> None:
        """Write the record of a shard that has ended: what it found in each split."""
        record = {
            of_split.images.split: {
                "image_ids": list(of_split.images.image_ids),
                "digests": {image_id: digest.hex() for image_id, digest in of_split.digests.items()},
                "stamps": {image_id: astuple(stamp) for image_id, stamp in of_split.stamps.items()},
                "rejected": [astuple(rejection) for rejection in of_split.rejected],
                "lost_facts": {image_id: astuple(facts) for image_id, facts in of_split.lost_facts.items()},
            }
            for of_split in found
        }
        with replacing(self._path(run, shard.number)) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")

    def read(self, run: ShardedRun) -> list[Found]:
        """Read the records of all shards, which have ended: what they found in each split.

        Raises:
            InputError: a record is not what was written; the message has the command that makes it again.
        """
        records = []
        for number in range(1, run.count + 1):
            remedy = f"Run: {run.command_of(number)}"
            record = read_record(self._path(run, number), remedy, *run.splits)
            try:
                records.append([_read_found(split, record[split]) for split in run.splits])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{self._path(run, number)} cannot be read ({error!r}). {remedy}") from None
        merged = [_merge(of_split) for of_split in zip(*records, strict=True)]
        if not run.is_of({found.images.split: list(found.images.image_ids) for found in merged}):
            raise InputError(
                f"{self.folder} is damaged: its records are not of the images of the extraction. "
                f"Remove it, and run all shards again: {run.command_of(1)}"
            )
        return merged

    def remove(self) -> None:
        """Remove all records, in one step."""
        aside = self.folder.with_name(".shards.old")
        shutil.rmtree(aside, ignore_errors=True)
        self.folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _seal(self, run: ShardedRun) -> str:
        """The digest of all that the file of an extraction says."""
        return digest(json.dumps(asdict(run), sort_keys=True).encode()).hex()

    def _path(self, run: ShardedRun, number: int) -> Path:
        return self.folder / run.digest / f"{number}.json"


def _difference(one: ShardedRun, other: ShardedRun) -> str:
    """Say in what an extraction differs from another."""
    if one.count != other.count:
        return f"of {one.count} shards, not of {other.count}"
    if list(one.recipes) != list(other.recipes) or one.max_pixels != other.max_pixels:
        return "by other backbones or options"
    return "of other images"


def _read_found(split: str, record: Mapping[str, Any]) -> Found:
    """Read what a shard found in a split; KeyError, TypeError, ValueError where it is not what was written."""
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
