"""Read the feature cache: one matrix in the order of the ids asked for; and read all of it again to verify it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from features.common.commands import move_aside, option_words, write_command
from features.common.errors import InputError, cause_of
from features.common.files import digest_file, replacing
from features.common.text import count_things, first_few
from features.shards import ShardRecords
from features.store.cache_file import BLOCK_ROWS, CacheFile, DamagedFile, Selection, read_selections
from features.store.images_table import FactsTable, Rejection, Stamp, read_rejections
from features.store.mapped import MappedFeatures, MappedRows, refuse_not_finite
from features.store.recipe import Recipe, backbone_of, row_and_kind, size_of
from features.store.source import Source, extract_command, read_source

#: In a default cache: the path of the data set that it belongs to.
_OWNER = "dataset.txt"
#: Threads that read images which may have changed, and how many one looks at before it takes others.
_READERS, _OF_READER = 8, 256


class FeatureCache:
    """The features of one data set. Each file is opened once, and is then seen as it was at that moment.

    Args:
        root: the cache's folder.
        data: the data set, for the commands that messages print, where the cache does not know it.
        backbones: those that are wanted, for the same commands; () if all that there are.

    Raises:
        InputError: there is no such folder.
    """

    def __init__(self, root: Path | str, data: Path | None = None, backbones: Sequence[str] = ()) -> None:
        self.root = Path(root)
        self._data, self._wanted = data, tuple(row_and_kind(name)[0] for name in backbones)
        self._files: dict[Path, CacheFile] = {}
        if not self.root.is_dir():
            raise InputError(f"{root} is not there: no features have been extracted. Run: {self.remedy()}")

    def __fspath__(self) -> str:
        """Its folder, so that it can be given wherever a path can."""
        return str(self.root)

    def __repr__(self) -> str:
        held = [f"{split}: {', '.join(self.backbones(split))}" for split in self.splits()]
        return "; ".join([f"cache {self.root}", *held])

    def splits(self) -> tuple[str, ...]:
        """Names of the splits that have cache files, sorted."""
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        return tuple(name for name in folders if not name.startswith(".") and self.backbones(name))

    def backbones(self, split: str) -> tuple[str, ...]:
        """Names of the backbones cached for a split, sorted."""
        folder = self.root / split
        files = folder.iterdir() if folder.is_dir() else ()  # no glob: it is silent where the folder cannot be read
        return tuple(sorted(path.stem for path in files if path.suffix == ".h5" and not path.name.startswith(".")))

    def hidden(self, split: str) -> tuple[str, ...]:
        """Names of the rows of a split that no list shows, sorted: those of single backbones of a fine-tuning."""
        folder = self.root / split
        files = folder.iterdir() if folder.is_dir() else ()
        return tuple(sorted(path.stem for path in files if path.suffix == ".h5" and path.name.startswith(".")))

    def unfinished(self) -> tuple[str, ...]:
        """Where an extraction was stopped before its end: `{split}/{backbone}`, sorted. Its rows wait in parts."""
        folders = {path.parents[1] for path in self.root.glob("[!.]*/[!.]*.parts/*/[!.]*.npz")}
        return tuple(sorted(f"{folder.parent.name}/{folder.stem}" for folder in folders))

    def path(self, split: str, backbone: str) -> Path:
        """Where the features of a split and backbone are kept."""
        return self.root / split / f"{backbone}.h5"

    def open(self, split: str, backbone: str) -> CacheFile:
        """Open the file of a split and backbone, or return it if that was done.

        Raises:
            DamagedFile: the file is not what was written.
            InputError: the file is missing, cannot be read, or has another schema.
        """
        path = self.path(split, backbone)
        if path not in self._files:
            if not path.exists():
                own = ", ".join(self.backbones(split))
                have = f"cached for {split}: {own}" if own else f"splits: {', '.join(self.splits()) or 'none'}"
                raise self._lack(split, f"{path} is not there ({have})", backbone)
            self._files[path] = CacheFile.open(path)
        return self._files[path]

    def rejected(self, split: str) -> dict[str, Rejection]:
        """The images of a split that stage 1 could not read, by id."""
        return {r.image_id: r for r in read_rejections(self.root) if r.path.startswith(f"{split}/")}

    def has_features(self, split: str, image_ids: Sequence[str]) -> np.ndarray:
        """Which images stage 1 could read: bool array (N,); an `InputError` says that it could read none."""
        rejected = self.rejected(split)
        has_features = np.array([image_id not in rejected for image_id in image_ids], bool)
        if not has_features.any():
            for backbone, cached in {name: s for s in self.splits() for name in self.backbones(s)}.items():
                self.open(cached, backbone)  # the remedy names what it was made with
            raise InputError(
                f"{self.root / 'rejected.csv'} lists every image of the split {split} ({len(image_ids)}): none has "
                f"features. Fix the images, then run: {self.remedy(*sorted({path.stem for path in self._files}))}"
            )
        return has_features

    def read(
        self, split: str, backbones: Sequence[str], image_ids: Sequence[str] | None = None, tta: str = "none"
    ) -> tuple[tuple[str, ...], np.ndarray]:
        """Read the features of one or more backbones, side by side, joined by image id.

        Args:
            split: name of the split.
            backbones: at least one; their columns stand in this order.
            image_ids: rows wanted, in this order. Without them: all rows of the first backbone's file, in its order;
                every backbone must have the same images.
            tta: of `TTA`: `mean` for the mean over the views of an image, `none` for the first view alone; or `all`.

        Returns:
            The image ids (N,), and the features: float32 (N, sum of D), one row an image. With `tta` "all" float32
            (N, V, sum of D), where V is the most views that one of the backbones has, 1 where each has one; the view of
            a backbone that has one is repeated V times.

        Raises:
            InputError: a file is missing or damaged, rows are missing in it or hold NaN or infinity, it has another
                fingerprint than the same backbone in another split; or, with `tta` "all", another number of views than
                V and 1.
        """
        files = self._open_all(split, backbones)
        wanted = files[0].image_ids if image_ids is None else tuple(image_ids)
        ends = np.cumsum([file.width for file in files])
        views = [max(file.views for file in files)] if tta == "all" else []
        for file in files if views else []:
            if file.views not in (1, *views):
                raise InputError(
                    f"{file.path} has {file.views} views of an image, but another backbone has {views[0]}. Extract all "
                    "with the same --views."
                )
        features = np.empty((len(wanted), *views, ends[-1]), np.float32)
        places = self._locate_all(split, files, wanted, backbones)
        for file in files:
            if image_ids is None and file.rows > len(wanted):
                counts = f"{count_things(file.rows, 'image')}, but {files[0].path} has {len(wanted)}"
                raise self._lack(split, f"{file.path} has {counts}", *backbones)
        selections = [
            Selection(file, rows, features[..., end - file.width : end], tta)
            for file, rows, end in zip(files, places, ends, strict=True)
        ]
        for selection, not_finite in zip(selections, read_selections(selections), strict=True):
            if len(not_finite):
                refuse_not_finite(selection.file, selection.rows[not_finite], len(wanted))
        return wanted, features

    def map(self, split: str, backbones: Sequence[str], image_ids: Sequence[str], tta: str = "none") -> MappedFeatures:
        """Find the features that `read` reads, and leave them on the disk; nothing of them is checked yet.

        Raises:
            InputError: as `read`, but for what the rows hold.
        """
        files, wanted = self._open_all(split, backbones), tuple(image_ids)
        file_of = np.zeros(len(wanted), np.uint8)
        places = self._locate_all(split, files, wanted, backbones)
        of_files = (MappedRows((file,), file_of, rows) for file, rows in zip(files, places, strict=True))
        return MappedFeatures(len(wanted), tuple(of_files), tta)

    def refuse_changed(
        self, split: str, backbones: Sequence[str], image_ids: Sequence[str], paths: Sequence[Path]
    ) -> None:
        """Compare image files with those that were extracted.

        Only files of another size or other times than when stage 1 saw them are read again, so that thousands of images
        cost milliseconds; and those that it rejected, which are few.

        Raises:
            InputError: the bytes of an image are others than those that were extracted or rejected, or it cannot be
                read.
        """
        files = [self.open(split, backbone) for backbone in backbones]
        rejected = self.rejected(split)
        given = dict(zip(image_ids, paths, strict=True))
        if repaired := [i for i in given if i in rejected and rejected[i].is_outdated(given[i])]:
            count = count_things(len(repaired), "image")
            raise self._lack(
                split, f"{count} of {split} that could not be read changed since (first: {repaired[0]})", *backbones
            )
        table = FactsTable.of_split(self.root, split)

        def current(part: Sequence[str]) -> list[tuple[str, Stamp, bytes]]:
            """The stamps and the digests of some images as they are now."""
            found = []
            for image_id in part:
                try:
                    stamp = Stamp.of(given[image_id])
                    found.append((image_id, stamp, table.digest(image_id, stamp) or digest_file(given[image_id])))
                except OSError as error:
                    raise InputError(f"{given[image_id]} cannot be read: {cause_of(error)}") from None
            return found

        wanted = [image_id for image_id in given if image_id not in rejected]
        parts = [wanted[start : start + _OF_READER] for start in range(0, len(wanted), _OF_READER)]
        with ThreadPoolExecutor(_READERS, "reader") as pool:
            now = [image for of_part in pool.map(current, parts) for image in of_part]
        digests = [(image_id, digest) for image_id, _, digest in now]
        with suppress(InputError, OSError):  # of a folder that cannot be written: the next run reads them again
            table.renew({image_id: stamp for image_id, stamp, digest in now if table.knows(image_id, digest)})
        for file in files:
            changed = [image_id for image_id, digest in digests if file.index.get(image_id, digest) != digest]
            if changed:
                count = count_things(len(changed), "image")
                what = f"{count} of {split} changed since {file.path} was extracted (first: {changed[0]})"
                raise self._lack(split, what, *backbones)

    def remedy(self, *backbones: str, split: str | None = None) -> str:
        """The command that brings missing features, from the data and with the options that made those that are there.

        Into the cache of another data set nothing is extracted. Of rows that a model of one's own may not give
        it is "".

        Args:
            backbones: whose; none for those that are wanted, or else those of other splits.
            split: where they are missing: its source counts before those of others.
        """
        cache = self.root if self._other_data(split) is None else self._own_cache(split)
        return self._extract_into(cache, backbones, split)

    def _extract_into(self, cache: Path | None, backbones: Sequence[str], split: str | None) -> str:
        """The command of `remedy` for a cache; None for the default one of the data set."""
        backbones = backbones or self._wanted or self._all_backbones()
        backbones = backbones or tuple(dict.fromkeys(name.partition("/")[2] for name in self.unfinished()))
        if cache == self.root and (command := self._shards_command(backbones, split)):
            return command
        sources = {name: self._source(name, split) for name in backbones}
        known = {name: source for name, source in sources.items() if source and source.recipe.can_be_asked_for}
        commands = [extract_command(known, cache)] if known else []
        unknown: dict[str, list[str]] = {} if backbones else {"": []}
        for name, source in sources.items():
            if source is None:
                unknown.setdefault(size_of(name), []).append(backbone_of(name))
        for input_size, names in unknown.items():
            options = {"backbones": ",".join(dict.fromkeys(names)) or None, "sizes": input_size or None}
            words = [*option_words(options), *([] if cache is None else ["--cache", cache])]
            commands.append(write_command("scripts/extract.sh", self._owner() or "DATA", *words))
        return " && ".join(commands)

    def _shards_command(self, backbones: Sequence[str], split: str | None) -> str:
        """The command that shards of such rows wait for; "" where none wait, or their records are damaged."""
        records = ShardRecords(self.root)
        with suppress(InputError):
            run = records.waiting()
            if run and split in (None, *run.splits) and not set(run.names).isdisjoint(backbones):
                return records.next_command(run)
        return ""

    def _all_backbones(self) -> tuple[str, ...]:
        """Names of the backbones cached for any split."""
        splits = self.splits() if self.root.is_dir() else ()
        return tuple(dict.fromkeys(name for split in splits for name in self.backbones(split)))

    def _lack(self, split: str, what: str, *backbones: str) -> InputError:
        """Make the error of features that are missing or outdated; where another data set's are here, it says so."""
        if any(name.startswith(".") for name in backbones):
            return InputError(f"{what}. Run extract finetune again, as it was run before: it keeps what is there.")
        remedy = self.remedy(*backbones, split=split)
        if not remedy:
            return InputError(f"{what}; its model may not give these features. Name others.")
        if (other := self._other_data(split)) is None:
            return InputError(f"{what}. Run: {remedy}")
        return InputError(
            f"{what}: these features are of {other}, not of {self._data}. Name the cache of {self._data} with --cache; "
            f"or extract it: {remedy}"
        )

    def _other_data(self, split: str | None) -> Path | None:
        """The data set that a split's features come from, if it is still there and is not the one that was named."""
        if self._data is None or not self._data.exists() or not self.root.is_dir():
            return None
        named = self._data.resolve()
        splits = [split] if split and self.backbones(split) else self.splits()
        sources = [read_source(self.path(name, backbone)) for name in splits for backbone in self.backbones(name)]
        found = [source.data if source else None for source in sources]
        for data in found:
            # One that is not there has moved, maybe to where it is now; a folder within may be extracted as a split.
            if data is None or not data.exists() or data.samefile(named) or data.resolve().is_relative_to(named):
                return None
        return found[0] if found else None

    def _own_cache(self, split: str | None) -> Path | None:
        """Where the data set that was named is extracted to if not here; None for its default cache."""
        assert self._data is not None
        try:
            own = default_cache(self._data)
        except InputError:  # it belongs to another data set of that name, too
            return Path("CACHE")
        if own.resolve() != self.root.resolve():
            return None
        return self.root if self._other_data(split) is None else Path("CACHE")

    def _owner(self) -> Path | None:
        """The data set, as far as it is known."""
        owner = self.root / _OWNER
        named = Path(owner.read_text(encoding="utf-8", errors="replace")) if owner.is_file() else None
        return self._data or named

    def _source(self, backbone: str, split: str | None) -> Source | None:
        """How the rows of a backbone come about in a split, by other rows where they are missing; None if none say it.

        Other rows are those of other splits, and of the backbone at another input size or of another kind.
        """
        splits = dict.fromkeys([*([split] if split else []), *(self.splits() if self.root.is_dir() else ())])
        cached = [name for name in self._all_backbones() if name != backbone]
        others = [name for name in cached if backbone_of(name) == backbone_of(backbone)]
        others.sort(key=lambda name: size_of(name) != size_of(backbone))
        ways = (self._whole_recipe, self._noted_recipe)
        recipes = (way(name, rows) for rows in (backbone, *others) for way in ways for name in splits)
        if (found := next(filter(None, recipes), None)) is None:
            return None
        recipe = found if found.backbone == backbone else found.of_other_rows(backbone)
        for name in splits:
            for rows in dict.fromkeys((backbone, *others, *cached)):
                source = read_source(self.path(name, rows))
                if source and (name == split or "split" not in source.options):  # else a folder that is one split
                    return self._renamed(replace(source, recipe=recipe))
        return Source(self._owner(), {}, recipe)

    def _whole_recipe(self, split: str, backbone: str) -> Recipe | None:
        """The recipe of the rows in the file of a split and backbone; None where it is missing or damaged."""
        with suppress(InputError):
            if self.path(split, backbone).exists():
                recipe, noted = self.open(split, backbone).recipe, self._noted_recipe(split, backbone)
                # Of the same rows the note knows where their weights were last.
                return noted if noted and noted.fingerprint == recipe.fingerprint else recipe
        return None

    def _noted_recipe(self, split: str, backbone: str) -> Recipe | None:
        """The recipe that is noted beside that file, which a run that was stopped may have left; None without one."""
        source = read_source(self.path(split, backbone))
        return source.recipe if source else None

    def _renamed(self, source: Source) -> Source:
        """A source in the data set that was named, which may have moved and is read by its own options."""
        same = self._data is None or source.data is None or source.data.resolve() == self._data.resolve()
        return source if same else replace(source, data=self._data, options={})

    def _open_all(self, split: str, backbones: Sequence[str]) -> list[CacheFile]:
        """Open the files of some backbones, at least one, whose fingerprints are those of other splits."""
        if not backbones:
            raise InputError(f"no backbone was named to read from {self.root}. Name at least one.")
        files = [self.open(split, backbone) for backbone in backbones]
        self._refuse_other_fingerprints(split, backbones)
        return files

    def _locate_all(
        self, split: str, files: Sequence[CacheFile], wanted: tuple[str, ...], backbones: Sequence[str]
    ) -> list[np.ndarray]:
        """Find the row of every id wanted in each file: int64 (N,); those of files with the same ids are one array."""
        found: list[np.ndarray] = []
        for number, file in enumerate(files):
            same = number and files[number - 1].image_ids == file.image_ids
            found.append(found[-1] if same else self._locate(split, file, wanted, backbones))
        return found

    def _locate(self, split: str, file: CacheFile, wanted: tuple[str, ...], backbones: Sequence[str]) -> np.ndarray:
        """Find the file's row of every id wanted: int64 (N,); the backbones are all that are read."""
        if file.image_ids == wanted:
            return np.arange(file.rows)
        missing = [image_id for image_id in wanted if image_id not in file.row_of]
        if missing and len(missing) == len(wanted) and self._data is not None:
            raise InputError(
                f"{file.path} holds none of the {count_things(len(wanted), 'image')} of {self._data} (first: "
                f"{first_few(wanted, 3)}), but {count_things(file.rows, 'other')} (first: "
                f"{first_few(file.image_ids, 3)}). Name the cache of {self._data} with --cache; or extract it: "
                f"{self._extract_into(self._own_cache(split), backbones, split)}"
            )
        if missing:
            count = f"{len(missing)} of {count_things(len(wanted), 'image')}"
            raise self._lack(split, f"{file.path}: {count} are missing (first: {missing[0]})", *backbones)
        return np.array([file.row_of[image_id] for image_id in wanted], np.int64)

    def _refuse_other_fingerprints(self, split: str, backbones: Sequence[str]) -> None:
        """Features of two recipes must never meet in one model: those of other splits are to be made as train's are."""
        outdated: dict[str, dict[str, Source]] = {}
        said = ""
        for backbone in backbones:
            splits = [name for name in self.splits() if self.path(name, backbone).exists()]
            model = self.open("train" if "train" in splits else split, backbone)
            for name in splits:
                file = self.open(name, backbone)
                if file.fingerprint != model.fingerprint:
                    said = said or (
                        f"{model.path} and {file.path} were extracted differently "
                        f"({model.recipe.differences(file.recipe)}): fingerprints {model.fingerprint[:8]} and "
                        f"{file.fingerprint[:8]}"
                    )
                    source = read_source(file.path) or Source(self._owner(), {}, file.recipe)
                    source = source if "split" in source.options else self._renamed(source)
                    outdated.setdefault(name, {})[backbone] = replace(source, recipe=model.recipe)
        if outdated:
            commands = dict.fromkeys(extract_command(sources, self.root) for sources in outdated.values())
            raise InputError(f"{said}. Run with one set of options for both: {' && '.join(commands)}")


@dataclass(frozen=True)
class Finding:
    """What is wrong with one cache file, and the commands that repair it; none if it could not be read."""

    reason: str
    remedy: str


def verify_cache(cache: FeatureCache) -> Iterator[tuple[Path, int, Finding | None]]:
    """Check every file: metadata, attributes, ids, the digests of all blocks, finiteness, fingerprint.

    Yields:
        Path, number of rows, and what was found first (None: the file is whole), file by file.
    """
    for split in cache.splits():
        for backbone in (*cache.backbones(split), *cache.hidden(split)):
            path = cache.path(split, backbone)
            try:
                file = cache.open(split, backbone)
                _check(file)
                yield path, file.rows, None
            except DamagedFile as damage:
                remedies = (move_aside(path), "" if backbone.startswith(".") else cache.remedy(backbone, split=split))
                yield path, 0, Finding(damage.reason, " && ".join(filter(None, remedies)))
            except InputError as error:
                yield path, 0, Finding(str(error).removeprefix(f"{path} "), "")


def _check(file: CacheFile) -> None:
    """Check one file; the message names the first block that is damaged, and how many are."""
    if file.recipe.backbone != file.path.stem:
        raise DamagedFile(file.path, f"it holds features of {file.recipe.backbone}")
    first: DamagedFile | None = None
    damaged = 0
    for number in range(file.blocks):
        try:
            finite = np.isfinite(file.block(number)).all(axis=(1, 2))
        except DamagedFile as damage:
            first, damaged = first or damage, damaged + 1
            continue
        if not finite.all():
            image_id = file.image_ids[number * BLOCK_ROWS + int(np.argmin(finite))]
            raise DamagedFile(file.path, f"the features of image {image_id} are not finite")
    if first:
        raise DamagedFile(file.path, first.reason + (f"; so are {damaged - 1} other blocks" if damaged > 1 else ""))


def default_cache(root: Path) -> Path:
    """The cache's folder of a data set for which none was named: features/cache/{name of DATA}.

    Raises:
        InputError: the folder belongs to another data set of the same name.
    """
    cache = Path(__file__).parents[1] / "cache" / root.resolve().name
    owner = cache / _OWNER
    found = owner.read_text(encoding="utf-8", errors="replace") if owner.exists() else str(root.resolve())
    if found != str(root.resolve()):
        raise InputError(
            f"{cache} holds the features of {found}, not of {root.resolve()}. "
            f"Name another folder with --cache. If the data set has moved, remove {owner} and run again."
        )
    return cache


def claim_default_cache(root: Path) -> Path:
    """Make the default cache of a data set and note whose it is.

    Raises:
        InputError: the folder belongs to another data set of the same name, or cannot be written.
    """
    cache = default_cache(root)
    with replacing(cache / _OWNER) as temporary:
        temporary.write_text(str(root.resolve()), encoding="utf-8")
    return cache
