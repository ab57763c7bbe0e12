"""Keep finished fits and scores beside the cache, found by what they are of, for the run that comes next."""

import io
import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from classify.crossfit.plan import Fit
from classify.inputs import Inputs
from classify.models.files import SavedEstimator
from classify.models.heads import HeadSpec
from classify.models.trained_head import Curves, TrainedHead
from features.common.errors import InputError
from features.common.files import DIGEST_BYTES, digest, read_record, replacing
from features.common.text import first_few
from features.store.mapped import AnyFeatures, MappedFeatures, in_blocks

logger = logging.getLogger(__name__)
#: The folder of a cache that holds them, and what ends the name of a fit's file, and of one of scores.
FITS, _FIT, _SCORES = "fits", ".fit", ".scores"
#: In it, what the latest run was made of, to say what has changed since.
_LATEST = "latest.json"
#: Packages whose version decides the last bits of a fit.
_PACKAGES = ("numpy", "scipy", "scikit-learn", "skops", "numba", "llvmlite")
_ROOM = Path(__file__).parents[1]
#: Modules of this room whose code decides a fit: an edit of one discards all finished fits, an edit elsewhere none.
#: What the table of baselines gives is part of what a fit is found by, so the table is not among them.
DECIDING = tuple(
    f"{package}.{path.stem}"
    for package in ("bank", "crossfit", "models")
    for path in sorted(_ROOM.joinpath(package).glob("*.py"))
    if path.stem not in ("__init__", "__main__", "baselines")
)
#: Gives an array by what it is of, or makes it; see `FitStore.recall`.
Recall = Callable[[Sequence[Any], Callable[[], np.ndarray]], np.ndarray]


def make_now(what: Sequence[Any], make: Callable[[], np.ndarray]) -> np.ndarray:
    """Make it: nothing is kept."""
    return make()


class FitStore:
    """Fits and scores by what they are of; those of anything else are never found.

    Two runs may use a folder at once, and whoever is killed leaves a file whole or none. What cannot be written or read
    is made again: a warning says so once.

    Args:
        folder: where they lie, made with the first one; None to keep none.
        limit: bytes that the folder may hold; the fits that were used least recently go first.

    Attributes:
        reused, made: how many fits were found, and how many were kept or could not be.
    """

    def __init__(self, folder: Path | None = None, limit: int = 0) -> None:
        self._folder, self._limit = (folder, limit) if limit else (None, 0)
        self._room: int | None = None
        self._gave_up = False
        self._lock = threading.Lock()  # fits are found and kept from several threads
        self.reused = self.made = 0

    @classmethod
    def beside(cls, cache: Path, gigabytes: float) -> "FitStore":
        """That of a cache."""
        return cls(cache / FITS, round(gigabytes * 1e9))

    def holds(self, key: str) -> bool:
        """Whether there is a fit of that key, as far as its file's name says."""
        return self._folder is not None and (self._folder / f"{key}{_FIT}").exists()

    def find(self, key: str) -> Fit | None:
        """Give the fit of a key; None where there is none, or where its file is damaged, which is said."""
        content = self._read(f"{key}{_FIT}")
        if content is None:
            return None
        with self._lock:
            self.reused += 1
        return unpack_fit(content)

    def keep(self, key: str, fit: Fit) -> None:
        """Keep a fit; a disk that is full or read-only is said once, and then no more are kept."""
        with self._lock:
            self.made += 1
        if self._keeps:
            self._write(f"{key}{_FIT}", pack_fit(fit))

    def recall(self, what: Sequence[Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """Give what was made of the same before, or make and keep it; see `digest_parts`."""
        if self._folder is None:
            return make()
        key = digest_parts(*what)
        content = self.find_bytes(key)
        if content is not None:
            found: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
            return found
        made = make()
        file = io.BytesIO()
        np.save(file, made, allow_pickle=False)
        self.keep_bytes(key, file.getvalue())
        return made

    def find_bytes(self, key: str) -> bytes | None:
        """Give what `keep_bytes` kept under a key; None where nothing is, or where it is damaged, which is said."""
        return self._read(f"{key}{_SCORES}")

    def keep_bytes(self, key: str, content: bytes) -> None:
        """Keep what is no fit, as `keep` does."""
        if self._keeps:
            self._write(f"{key}{_SCORES}", content)

    def compare(self, parts: Mapping[str, str]) -> list[str]:
        """Name the parts that are other than those of the latest run on this cache, and note these as the latest."""
        if self._folder is None:
            return []
        path = self._folder / _LATEST
        latest: dict[str, str] = {}
        with suppress(InputError, OSError):  # it only says why
            latest = read_record(path, "")
        with suppress(InputError), replacing(path) as temporary:
            temporary.write_text(json.dumps(dict(parts)), encoding="utf-8")
        return [name for name, part in parts.items() if latest.get(name, part) != part]

    @property
    def _keeps(self) -> bool:
        return self._folder is not None and not self._gave_up

    def _read(self, name: str) -> bytes | None:
        """What was written under a name; None where nothing was, or where it is damaged."""
        if self._folder is None:
            return None
        path = self._folder / name
        try:
            stored = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        with suppress(OSError):  # of another's file only the owner may change the times
            os.utime(path)  # used just now
        content = stored[DIGEST_BYTES:]
        if stored[:DIGEST_BYTES] == _digest_file(name, content):
            return content
        logger.warning("%s is damaged: what it held is made again", path)
        return None

    def _write(self, name: str, content: bytes) -> None:
        """Write content with its digest, and keep to the limit."""
        assert self._folder is not None
        try:
            with replacing(self._folder / name) as temporary:
                temporary.write_bytes(_digest_file(name, content) + content)
        except InputError as error:
            self._give_up(error.__cause__ or error)
            return
        with self._lock:
            if self._room is not None:
                self._room -= len(content)
            if self._room is None or self._room < 0:
                self._room = self._prune(self._folder)

    def _prune(self, folder: Path) -> int:
        """Remove what was used least recently until the folder keeps its limit; gives the bytes that are left."""
        files = []
        with suppress(FileNotFoundError):  # somebody removed the folder
            for entry in os.scandir(folder):
                with suppress(FileNotFoundError):  # another run prunes too
                    if entry.name.endswith((_FIT, _SCORES)) and entry.is_file():
                        files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        held = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if held <= self._limit:
                break
            with suppress(OSError):  # another's file, say: the next one goes instead
                Path(path).unlink(missing_ok=True)
                held -= size
        return self._limit - held

    def _give_up(self, error: BaseException) -> None:
        """Say why nothing is kept from now on; what is there is still found."""
        with self._lock:
            said, self._gave_up = self._gave_up, True
        if not said:
            reason = getattr(error, "strerror", None) or error
            logger.warning("%s cannot be used (%s), so no more fits are kept there", self._folder, reason)


def _digest_file(name: str, content: bytes) -> bytes:
    """The digest of a file, with its name: a copy under another name is damage."""
    return digest(name.encode() + content)


#: Neither finds nor keeps a fit.
KEEP_NONE = FitStore()


class FitKeys:
    """What the fits of a run are found by.

    Attributes:
        parts: what all of them have in common, and the backbones' features, by name: digests, to say what changed.
        of_views: the digest of the views that heads draw from; empty without.
    """

    def __init__(self, inputs: Inputs) -> None:
        versions = _list_versions()
        groups = inputs.train.groups
        self.parts = {
            "the code": digest_parts(*map(read_module, DECIDING)),
            "versions of Python or packages": digest_parts(versions),
            "labels": digest_parts(inputs.train_labels),
            "groups": digest_parts(*([] if groups is None else [groups])),
        }
        self._common = digest_parts(*self.parts.values())
        matrices = [inputs.train.features] + ([] if inputs.test is None else [inputs.test.features])
        self._of_features = {
            name: digest_parts(
                *(digest_rows(matrix[:, columns]) for matrix in matrices),
                *map(digest_rows, inputs.train.tuned[name].by_source if name in inputs.train.tuned else ()),
            )
            for name, columns in inputs.columns.items()
        }
        views = inputs.train.views
        self.of_views = () if views is None else (digest_rows(views),)
        self.parts |= {f"features of {name}": found for name, found in self._of_features.items()}

    def make(self, backbones: Collection[str], *what: Any) -> str:
        """Digest what decides a fit beside the inputs: arrays, and values whose `repr` tells them apart."""
        return digest_parts(self._common, [self._of_features[name] for name in backbones], *what)

    def of_scores(self, modules: Collection[str], *what: Any) -> tuple[Any, ...]:
        """What scores of the training rows are found by: modules that decide them, and whatever else does."""
        return (_list_versions(), *map(read_module, modules), self.parts["labels"], self.parts["groups"], *what)


def read_module(name: str) -> bytes:
    """Read the source of a module of this room, `crossfit.plan`, say."""
    return _ROOM.joinpath(*name.split(".")).with_suffix(".py").read_bytes()


def _list_versions() -> list[str]:
    """What decides the last bits beside the code: the machine, Python and packages."""
    return [platform.machine(), platform.python_version(), *(version(name) for name in _PACKAGES)]


def digest_parts(*parts: Any) -> str:
    """Digest arrays by shape, type and content, features on the disk as those in memory, else the `repr`."""
    whole = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        if isinstance(part, MappedFeatures):
            whole.update(f"{part.shape}float32".encode())
            for rows in in_blocks(len(part)):
                whole.update(part[rows].data.cast("B"))
        elif isinstance(part, np.ndarray):
            whole.update(f"{part.shape}{part.dtype}".encode())
            whole.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
        else:
            whole.update(part if isinstance(part, bytes) else repr(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()


def digest_rows(features: AnyFeatures) -> str:
    """Digest features as float32 by blocks of rows, so that columns are never copied whole, nor the disk read at once.

    Of features in memory and of the same on the disk it is the same.
    """
    whole = xxh3_128(f"{features.shape}float32".encode())
    for rows in in_blocks(len(features)):
        whole.update(np.ascontiguousarray(features[rows]).data)
    return whole.hexdigest()


def describe_reuse(store: FitStore, keys: Mapping[str, Sequence[str]], changed: Sequence[str]) -> str:
    """Say which fits are kept from earlier runs, which are to be made, and what changed since the latest run.

    Nothing, "", where none is kept and nothing changed.

    Args:
        store: where they may be.
        keys: of the fits of each model, by name.
        changed: of `FitStore.compare`.
    """
    missing = {model: sum(not store.holds(key) for key in own) for model, own in keys.items()}
    total, new = sum(map(len, keys.values())), sum(missing.values())
    if not new:
        return f"fits: all {total} are kept from earlier runs"
    why = f"{', '.join(changed)} changed: " if changed else ""
    if new == total:
        return f"fits: {why}all {total} are made again" if changed else ""
    models = first_few([model for model, count in missing.items() if count])
    return f"fits: {total - new} of {total} are kept from earlier runs; {why}to fit: {models}"


def pack_arrays(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Write facts, fit for JSON, and arrays of any shape: an archive of numpy."""
    file = io.BytesIO()
    np.savez(file, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpack_arrays(content: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `pack_arrays` wrote."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = dict(archive)
    return json.loads(arrays.pop("facts").tobytes()), arrays


def pack_fit(fit: Fit) -> bytes:
    """Write a fit."""
    arrays = {"out_of_fold": fit.out_of_fold} | ({} if fit.test is None else {"test": fit.test})
    facts: dict[str, Any] = {"converged": fit.converged, "seconds": fit.seconds}
    if isinstance(fit.model, TrainedHead):
        head = fit.model
        facts |= {"spec": asdict(head.spec), "best_epoch": head.best_epoch, "training_seconds": head.seconds}
        arrays |= {f"weight{place}": weight for place, weight in enumerate(head.weights)}
        arrays |= asdict(head.curves)
    else:
        arrays["estimator"] = np.frombuffer(fit.model.content, np.uint8)
    return pack_arrays(facts, arrays)


def unpack_fit(content: bytes) -> Fit:
    """Read what `pack_fit` wrote."""
    facts, arrays = unpack_arrays(content)
    model: TrainedHead | SavedEstimator
    if "spec" in facts:
        spec = HeadSpec(**facts["spec"] | {"hidden_units": tuple(facts["spec"]["hidden_units"])})
        weights = [arrays[f"weight{place}"] for place in range(sum(name.startswith("weight") for name in arrays))]
        curves = Curves(*(arrays[name] for name in Curves.__dataclass_fields__))
        model = TrainedHead(spec, weights, curves, facts["best_epoch"], facts["training_seconds"])
    else:
        model = SavedEstimator(arrays["estimator"].tobytes())
    return Fit(model, arrays["out_of_fold"], arrays.get("test"), facts["converged"], facts["seconds"])
