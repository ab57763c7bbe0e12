"""Keep finished fits on disk while a run goes on, so that whatever ends it, the same command reuses them."""

import io
import json
import logging
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classify.crossfit.prediction import Fit
from classify.inputs import Inputs
from classify.models.curves import Curves
from classify.models.estimator_files import dump_estimator, load_estimator
from classify.models.heads import HeadSpec
from classify.models.trained_head import TrainedHead
from features.common.errors import unmasked_signals
from features.common.files import replacing

logger = logging.getLogger(__name__)
#: Packages whose version decides the last bits of a fit.
_DECIDING = ("numpy", "scipy", "scikit-learn", "tensorflow")
_STAGE = Path(__file__).parents[1]
#: Packages of this stage whose code decides a fit; a changed print elsewhere discards none.
_CODE = ("models", "bank", "crossfit")


class FinishedFits:
    """Fits by what they are fits of; a fit of anything else is never found.

    Args:
        folder: where they lie, made with the first one; None to keep none.
        identity: what all of them have in common; see `identify`.

    Attributes:
        found: how many fits were finished before this object was made.
    """

    def __init__(self, folder: Path | None = None, identity: str = "") -> None:
        self._folder, self._identity = folder, identity
        self.found = 0
        self._own: set[Path] = set()  # what this process made: a model measured twice is no resumed run
        self._counting = threading.Lock()  # fits are recalled from several threads

    def recall(self, what: Sequence[Any], fit: Callable[[], list[Fit]]) -> list[Fit]:
        """Give the fits that were finished before; or make them, and keep them.

        A file that is damaged is made anew.

        Args:
            what: all that decides the fits beside the identity: arrays, and values whose `repr` tells them apart.
            fit: makes them.

        Raises:
            InputError: the disk is full, or cannot be written.
        """
        if self._folder is None:
            return fit()
        path = self._folder / f"{_digest(self._identity, *what)}.npz"
        if path.exists():
            try:
                with unmasked_signals(), np.load(path, allow_pickle=False) as archive:
                    fits = _decode(dict(archive))
                with self._counting:
                    self.found += 0 if path in self._own else len(fits)
                return fits
            except Exception as error:  # noqa: BLE001 - a damaged archive fails in as many ways as it has bytes
                logger.warning("%s is damaged (%s): what it held is fitted again", path, error)
        fits = fit()
        archive_bytes = io.BytesIO()
        np.savez(archive_bytes, allow_pickle=False, **_encode(fits))
        with replacing(path) as temporary:
            temporary.write_bytes(archive_bytes.getbuffer())
        with self._counting:
            self._own.add(path)
        return fits


def identify(inputs: Inputs) -> str:
    """Digest what every fit of a run depends on: the data, the code of this stage and the versions below it."""
    code = [path.read_bytes() for folder in _CODE for path in sorted((_STAGE / folder).glob("*.py"))]
    versions = [platform.python_version(), *(version(name) for name in _DECIDING)]
    test = [] if inputs.test is None else [inputs.test.features]
    groups = [] if inputs.train.groups is None else [inputs.train.groups]
    return _digest(versions, *code, inputs.train.features, inputs.train_labels, *groups, *test)


def _digest(*parts: Any) -> str:
    """Digest arrays by shape, type and content, anything else by its `repr`."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
        else:
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _encode(fits: Sequence[Fit]) -> dict[str, np.ndarray]:
    """Write fits as named arrays."""
    arrays: dict[str, np.ndarray] = {"count": np.array(len(fits))}
    for index, fit in enumerate(fits):
        arrays[f"{index}/out_of_fold"] = fit.out_of_fold
        arrays[f"{index}/told"] = np.array([fit.converged, fit.seconds], np.float64)
        if fit.test is not None:
            arrays[f"{index}/test"] = fit.test
        if isinstance(fit.model, TrainedHead):
            head = fit.model
            facts = {"spec": asdict(head.spec), "best_epoch": head.best_epoch, "seconds": head.seconds}
            arrays[f"{index}/head"] = np.array(json.dumps(facts))
            arrays |= {f"{index}/curves/{name}": values for name, values in asdict(head.curves).items()}
            arrays |= {f"{index}/weights/{place}": weight for place, weight in enumerate(head.weights)}
        else:
            arrays[f"{index}/estimator"] = np.frombuffer(dump_estimator(fit.model), np.uint8)
    return arrays


def _decode(arrays: dict[str, np.ndarray]) -> list[Fit]:
    """Read what `_encode` wrote."""
    fits = []
    for index in range(int(arrays["count"])):
        converged, seconds = arrays[f"{index}/told"].tolist()
        fits.append(
            Fit(
                _decode_head(arrays, index)
                if f"{index}/head" in arrays
                else load_estimator(arrays[f"{index}/estimator"].tobytes(), "it"),
                arrays[f"{index}/out_of_fold"],
                arrays.get(f"{index}/test"),
                bool(converged),
                seconds,
            )
        )
    return fits


def _decode_head(arrays: dict[str, np.ndarray], index: int) -> TrainedHead:
    """Read one head."""
    facts = json.loads(str(arrays[f"{index}/head"]))
    spec = HeadSpec(**(facts["spec"] | {"hidden_units": tuple(facts["spec"]["hidden_units"])}))
    curves = Curves(*(arrays[f"{index}/curves/{field.name}"] for field in fields(Curves)))
    places = sum(name.startswith(f"{index}/weights/") for name in arrays)
    weights = [arrays[f"{index}/weights/{place}"] for place in range(places)]
    return TrainedHead(spec, weights, curves, facts["best_epoch"], facts["seconds"])
