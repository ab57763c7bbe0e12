"""Damaged and foreign HDF5 files in the place of cached features."""

import io
import random
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from scripts.knocks.case import CORRECT, LOST, REJECTED, WRONG, Case, Kind, Verdict, one_by_one
from scripts.knocks.commands import EXTRACTING, LEARNING, READING, Surroundings, run
from scripts.knocks.damage import DAMAGES, choose
from scripts.knocks.stage import NAME, Stage, rows_of

Change = Callable[[h5py.File, random.Random], None]
_DATASETS = ("features", "block_digests", "image_ids", "image_digests")


def _swap_rows(file: h5py.File, generator: random.Random) -> None:
    features = file["features"][:]
    first, second = generator.sample(range(len(features)), 2)
    features[[first, second]] = features[[second, first]]
    file["features"][...] = features


def _swap_ids(file: h5py.File, generator: random.Random) -> None:
    ids = file["image_ids"][:]
    first, second = generator.sample(range(len(ids)), 2)
    ids[[first, second]] = ids[[second, first]]
    file["image_ids"][...] = ids


def _change_value(file: h5py.File, generator: random.Random) -> None:
    features = file["features"][:]
    value = generator.choice((np.nan, np.inf, -1.0, 1e30))
    features[generator.randrange(len(features)), 0, generator.randrange(features.shape[2])] = value
    file["features"][...] = features


def _remove(file: h5py.File, generator: random.Random) -> None:
    del file[generator.choice(_DATASETS)]


def _change_attribute(file: h5py.File, generator: random.Random) -> None:
    name = generator.choice(sorted(file.attrs))
    file.attrs[name] = generator.choice(("", "x", 0, 99, -1.5))


def _remove_attribute(file: h5py.File, generator: random.Random) -> None:
    del file.attrs[generator.choice(sorted(file.attrs))]


def _chunk(file: h5py.File, generator: random.Random) -> None:
    features = file["features"][:]
    del file["features"]
    file.create_dataset("features", data=features, chunks=True, compression="gzip")


def _retype(file: h5py.File, generator: random.Random) -> None:
    features = file["features"][:]
    del file["features"]
    file["features"] = features.astype(generator.choice((">f4", "<f8", "<i4", "<f2")))


def _shorten(file: h5py.File, generator: random.Random) -> None:
    features = file["features"][:]
    del file["features"]
    file["features"] = features[: generator.randrange(len(features))]


def _reshape(file: h5py.File, generator: random.Random) -> None:
    features = file["features"][:]
    del file["features"]
    file["features"] = features[:, 0] if generator.random() < 0.5 else features.repeat(2, axis=1)


def _external(file: h5py.File, generator: random.Random) -> None:
    del file["features"]
    file["features"] = h5py.ExternalLink("/etc/passwd", "/features")


def _external_storage(file: h5py.File, generator: random.Random) -> None:
    features = file["features"]
    shape, size = features.shape, features.dtype.itemsize * features.size
    del file["features"]
    file.create_dataset("features", shape, "<f4", external=[("/etc/passwd", 0, size)])


def _virtual(file: h5py.File, generator: random.Random) -> None:
    shape = file["features"].shape
    del file["features"]
    layout = h5py.VirtualLayout(shape, "<f4")
    layout[...] = h5py.VirtualSource("other.h5", "features", shape)
    file.create_virtual_dataset("features", layout)


def _group(file: h5py.File, generator: random.Random) -> None:
    name = generator.choice(_DATASETS)
    del file[name]
    file.create_group(name)


def _cycle(file: h5py.File, generator: random.Random) -> None:
    del file["features"]
    file["features"] = h5py.SoftLink("/features")


def _newer(file: h5py.File, generator: random.Random) -> None:
    file.attrs["schema_version"] = generator.choice((0, 1, 3, "2", 2.5))


#: What is done within a file, in words.
CHANGES: dict[str, Change] = {
    "two rows swapped": _swap_rows,
    "two ids swapped": _swap_ids,
    "a value changed": _change_value,
    "a dataset missing": _remove,
    "an attribute changed": _change_attribute,
    "an attribute missing": _remove_attribute,
    "chunked and compressed": _chunk,
    "another type": _retype,
    "fewer rows": _shorten,
    "another shape": _reshape,
    "a link to another file": _external,
    "bytes of another file": _external_storage,
    "a virtual dataset": _virtual,
    "a group for a dataset": _group,
    "a link to itself": _cycle,
    "another schema": _newer,
}


def damaged_file(stage: Stage, case: Case) -> tuple[str, bytes]:
    """Damage the cache file of train; in words, too."""
    generator = case.random()
    whole = (stage.root / "cache" / "train" / f"{NAME}.h5").read_bytes()
    if case.number % 3 == 0:
        name = list(CHANGES)[case.number // 3 % len(CHANGES)]
        stored = io.BytesIO(whole)
        with h5py.File(stored, "r+") as file:
            CHANGES[name](file, generator)
        return name, stored.getvalue()
    if case.number % 30 == 1:
        stored = io.BytesIO()
        with h5py.File(stored, "w") as file:
            file["model_weights"] = np.zeros((4, 4))
        return "a foreign HDF5 file", stored.getvalue()
    if case.number % 30 == 2:
        return "the cache file of test", (stage.root / "cache" / "test" / f"{NAME}.h5").read_bytes()
    damage = choose(generator)
    return damage, DAMAGES[damage](whole, generator)


def play(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Verify a cache with a damaged file; then read it, train on it and extract into it."""
    story, content = damaged_file(stage, case)
    place = folder / "place"
    stage.copy(place, "run")
    path = place / "cache" / "train" / f"{NAME}.h5"
    whole = path.read_bytes()
    path.write_bytes(content)
    around = Surroundings(folder / "tmp", real=case.number % 50 == 49)
    ended = run(["features", "verify", str(place / "cache")], around)
    verdict = ended.failure() or judge(stage, place, ended.code, ended.last_line())
    if verdict.outcome == REJECTED and content == whole:
        verdict = Verdict(LOST, f"a whole file was refused: {verdict.story}")
    if verdict.outcome in (CORRECT, REJECTED) and case.number % 5 == 0:
        verdict = _use(stage, case, place, around) or verdict
    return verdict._replace(story=f"{story}: {verdict.story}")


def judge(stage: Stage, place: Path, code: int, said: str) -> Verdict:
    """Compare what was found whole with what was written."""
    from features.common.errors import InputError

    if code == 2:
        return Verdict(REJECTED, said)
    try:
        rows = rows_of(place / "cache", "train")
    except InputError as error:
        return Verdict(WRONG, f"verified as whole, but refused when it is read: {error}")
    written = {split: rows_of(stage.root / "cache", split) for split in ("train", "test")}
    expected = {**written["test"], **written["train"]}
    wrong = [name for name, row in rows.items() if name not in expected or (row != expected[name]).any()]
    if wrong:
        return Verdict(WRONG, f"verified as whole, but the row of {wrong[0]} is not the one that was written")
    return Verdict(CORRECT, f"{len(rows)} rows as they were written")


def _use(stage: Stage, case: Case, place: Path, around: Surroundings) -> Verdict | None:
    """Run a command that reads the cache: it ends with the undisturbed result, or says why not."""
    from features.common.errors import InputError

    name = ("run", "extract")[case.number // 5 % 2]
    ended = run(stage.command(name, place), around)
    if (failure := ended.failure()) or ended.code:
        return failure
    try:
        return stage.compare(name, place)
    except InputError as error:  # an extraction that has nothing to do does not read all rows again
        return Verdict(REJECTED, f"refused when it is read: {error}")


CACHES = Kind(
    "caches",
    300,
    "`features verify`, and of each fifth case `classify run` or `extract run`, on a cache with a file that is "
    "damaged, changed within (rows, ids, types, links) or foreign",
    "what is called whole is what was written, value by value; a command that goes on has the undisturbed result",
    one_by_one(play),
    batch=10,
    needs=("run",),
    modules=(*READING, *EXTRACTING, *LEARNING),
)
