"""Extractions by many processes: who fills which cache file, and what shards leave in CACHE/.shards.

There `run.json` says what the extraction is, and a record of each shard that has ended what it found.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.common.commands import join_words, write_command
from features.common.errors import InputError
from features.common.files import digest, hold, read_record, replacing
from features.common.text import count_things
from features.store.recipe import Recipe


@contextmanager
def hold_files(cache: Path, splits: Iterable[str], names: Iterable[str], *, shared: bool = False) -> Iterator[None]:
    """Hold the locks of the cache files of some rows, in each split, for the length of a `with` block.

    Raises:
        InputError: another process holds one of them, and either does not share it.
    """
    names = list(names)
    with ExitStack() as locks:
        for split in splits:
            for name in names:
                locks.enter_context(hold(cache / split / f"{name}.h5.lock", shared=shared))
        yield


@dataclass(frozen=True)
class ShardedRun:
    """An extraction by shards.

    Attributes:
        digest: of its number of shards, its images by id, its recipes and the size at which images are rejected.
        count: number of shards.
        splits: names of the splits.
        recipes: of the rows, as they are in the attributes of a cache file.
        max_pixels: images with more pixels are rejected.
        command: the words of the command of a shard, but for --shard; DATA comes first.
    """

    digest: str
    count: int
    splits: Sequence[str]
    recipes: Sequence[Mapping[str, Any]]
    max_pixels: int
    command: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Names of its rows: `{name}.h5` in each split."""
        return [recipe["backbone"] for recipe in self.recipes]

    def command_of(self, number: int) -> str:
        """The command that runs a shard."""
        return write_command("scripts/extract.sh", *self.command, "--shard", f"{number}/{self.count}")

    def difference(self, other: "ShardedRun") -> str:
        """Say in what it differs from another extraction; "" if in nothing.

        DATA of one that began on another machine may be at a path that is not there on this one.
        """
        if self.digest != other.digest:
            if self.count != other.count:
                return f"of {self.count} shards, not of {other.count}"
            return "of other images" if self._way() == other._way() else "by other backbones or options"
        one, two = (Path(run.command[0]) for run in (self, other))
        with suppress(OSError):  # the first path is not there
            return "" if one.samefile(two) else f"of {one}, not of {two}"
        return ""

    def _way(self) -> tuple[list[str], int]:
        """What decides the rows, beside the images."""
        return [Recipe.from_attributes(recipe).fingerprint for recipe in self.recipes], self.max_pixels


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
        return ShardedRun(**self._read(self._run, f"Remove {self.folder}, and run the shards again."))

    def begin(self, run: ShardedRun) -> None:
        """Note the extraction that a shard is part of.

        Raises:
            InputError: shards of another one have ended, or are at work.
        """
        with self._held():
            other = self.run()
            difference = other.difference(run) if other else ""
            if other and not difference:
                return
            if other:
                self._refuse_ended(other, f"another extraction, {difference}")
                with hold_files(self._cache, other.splits, other.names):  # none of its shards is at work
                    pass
            self._write(self._run, asdict(run))

    def make_way(self, splits: Iterable[str], names: Iterable[str]) -> None:
        """Remove what shards that never ended have begun, for a plain extraction that holds the same cache files.

        Raises:
            InputError: some have ended: their records would undo what the plain extraction does.
        """
        with self._held():
            run = self.run()
            if run and not set(run.splits).isdisjoint(splits) and not set(run.names).isdisjoint(names):
                self._refuse_ended(run, "an extraction of the same rows")
                self._remove()

    def waiting(self) -> ShardedRun | None:
        """The extraction of which some shards have ended, and that waits for the others or for its assembly."""
        run = self.run()
        return run if run and self.done(run) else None

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

    def write(self, run: ShardedRun, number: int, found: Mapping[str, Any]) -> None:
        """Write the record of a shard that has ended: what it found, as JSON has it."""
        self._write(self._path(run, number), found)

    def read(self, run: ShardedRun) -> list[dict[str, Any]]:
        """Read the records of all shards, which have ended, in their order.

        Raises:
            InputError: a record is not what was written; the message has the command that makes it again.
        """
        return [self.read_one(run, number) for number in range(1, run.count + 1)]

    def read_one(self, run: ShardedRun, number: int) -> dict[str, Any]:
        """Read the record of a shard that has ended; see `read`."""
        return self._read(self._path(run, number), f"Run: {run.command_of(number)}")

    def remove(self) -> None:
        """Remove all records, in one step."""
        with self._held():
            self._remove()

    def _held(self) -> AbstractContextManager[None]:
        """Hold the lock of the records for the length of a `with` block."""
        return hold(self._cache / ".shards.lock", wait=True)

    def _refuse_ended(self, run: ShardedRun, what: str) -> None:
        """Refuse to touch an extraction of which shards have ended."""
        if done := self.done(run):
            raise InputError(
                f"{self._cache} has {len(done)} of {count_things(run.count, 'shard')} of {what}. Finish that one "
                f"first: {self.next_command(run)}; or give it up, which keeps its rows for {run.count} shards or one "
                f"process: {join_words('rm', '-r', self.folder)}"
            )

    def _remove(self) -> None:
        aside = self.folder.with_name(".shards.old")
        shutil.rmtree(aside, ignore_errors=True)
        self.folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _write(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write what one file says, with its seal."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"seal": self._seal(path, content), "content": content}), encoding="utf-8")

    def _read(self, path: Path, remedy: str) -> dict[str, Any]:
        """Read what `_write` wrote."""
        record = read_record(path, remedy, "seal", "content")
        if record["seal"] != self._seal(path, record["content"]):
            raise InputError(f"{path} is damaged. {remedy}")
        content: dict[str, Any] = record["content"]
        return content

    def _seal(self, path: Path, content: Mapping[str, Any]) -> str:
        """The digest of what a file says, and of where it is: that of another shard does not count here."""
        return digest(json.dumps([path.relative_to(self.folder).as_posix(), content]).encode()).hex()

    def _path(self, run: ShardedRun, number: int) -> Path:
        return self.folder / run.digest / f"{number}.json"
