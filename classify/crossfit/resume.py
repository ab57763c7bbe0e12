"""Keep finished fits on disk while a run goes on, so that a stopped run goes on where it was."""

import logging
import platform
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from classify.crossfit.plan import Fit
from classify.inputs import Inputs
from classify.models.files import dump_trusted, load_trusted
from classify.models.heads import HeadSpec
from classify.models.trained_head import Curves, TrainedHead
from features.common.files import DIGEST_BYTES, digest, replacing

logger = logging.getLogger(__name__)
#: Packages whose version decides the last bits of a fit.
_PACKAGES = ("numpy", "scipy", "scikit-learn", "tensorflow")
_ROOM = Path(__file__).parents[1]
#: Modules of this room whose code decides a fit: an edit of one discards all finished fits, an edit elsewhere none.
#: What the table of baselines gives is part of what a fit is recalled by, so the table is not among them.
DECIDING = tuple(
    f"{package}.{path.stem}"
    for package in ("bank", "crossfit", "models")
    for path in sorted(_ROOM.joinpath(package).glob("*.py"))
    if path.stem not in ("__init__", "baselines")
)


class FinishedFits:
    """Fits by what they are fits of; a fit of anything else is never found.

    Args:
        folder: where they lie, made with the first one; None to keep none.
        identity: what all of them have in common; see `identify_inputs`.

    Attributes:
        found: how many fits were finished before this object was made.
    """

    def __init__(self, folder: Path | None = None, identity: str = "") -> None:
        self._folder, self._identity = folder, identity
        self.found = 0
        self._earlier = set() if folder is None else {*folder.glob("*.fits")}
        self._counting = threading.Lock()  # fits are recalled from several threads

    def recall(self, what: Sequence[Any], fit: Callable[[], list[Fit]]) -> list[Fit]:
        """Give the fits that were finished before; or make them, and keep them, as where their file is damaged.

        What decides the fits, beside the identity, is arrays, and values whose `repr` tells them apart.

        Raises:
            InputError: the disk is full, or cannot be written.
        """
        if self._folder is None:
            return fit()
        path = self._folder / f"{digest_parts(self._identity, *what)}.fits"
        if path.exists():
            stored = path.read_bytes()
            content = stored[DIGEST_BYTES:]
            if stored[:DIGEST_BYTES] == digest(content):
                fits = load_trusted(content, path, (list, Fit, TrainedHead, HeadSpec, Curves))
                with self._counting:
                    self.found += len(fits) if path in self._earlier else 0
                return fits
            logger.warning("%s is damaged: what it held is fitted again", path)
        fits = fit()
        content = dump_trusted(fits, compress=False)
        with replacing(path) as temporary:
            temporary.write_bytes(digest(content) + content)
        return fits


#: Neither finds nor keeps a fit.
KEEP_NONE = FinishedFits()


def identify_inputs(inputs: Inputs) -> str:
    """Digest what every fit of a run depends on: the data, the code of this stage and the versions below it."""
    code = [_ROOM.joinpath(*name.split(".")).with_suffix(".py").read_bytes() for name in DECIDING]
    versions = [platform.python_version(), *(version(name) for name in _PACKAGES)]
    test = [] if inputs.test is None else [inputs.test.features]
    groups = [] if inputs.train.groups is None else [inputs.train.groups]
    return digest_parts(versions, *code, inputs.train.features, inputs.train_labels, *groups, *test)


def digest_parts(*parts: Any) -> str:
    """Digest arrays by shape, type and content, anything else by its `repr`."""
    whole = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        if isinstance(part, np.ndarray):
            whole.update(f"{part.shape}{part.dtype}".encode())
            whole.update(np.ascontiguousarray(part).data.cast("B") if part.size else b"")
        else:
            whole.update(part if isinstance(part, bytes) else repr(part).encode())
        whole.update(b"\0")
    return whole.hexdigest()
