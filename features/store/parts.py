"""Keep extracted rows in parts: small files, each whole or absent, until the cache file is assembled."""

import io
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from features.common.errors import InputError, cause_of
from features.common.files import DIGEST_BYTES, digest, replacing
from features.store.images_table import ImageFacts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """Extracted rows of one backbone.

    Attributes:
        digests: BLAKE2b-128 of each file's bytes, 16 bytes a row.
        features: float32 or float16 (n, V, D).
        seconds: of the device that computed them, all rows together; None where nobody measured it.
        device, engine: what computed them; "" where it is not known.
    """

    image_ids: tuple[str, ...]
    digests: tuple[bytes, ...]
    features: np.ndarray
    facts: tuple[ImageFacts, ...]
    seconds: float | None = None
    device: str = ""
    engine: str = ""

    @classmethod
    def join(cls, pieces: Sequence["Rows"]) -> "Rows":
        """Put several pieces of one device, at least one, behind one another."""
        seconds = [piece.seconds for piece in pieces if piece.seconds is not None]
        return cls(
            tuple(image_id for piece in pieces for image_id in piece.image_ids),
            tuple(digest for piece in pieces for digest in piece.digests),
            np.concatenate([piece.features for piece in pieces]),
            tuple(facts for piece in pieces for facts in piece.facts),
            sum(seconds) if len(seconds) == len(pieces) else None,
            pieces[0].device,
            pieces[0].engine,
        )


class PartStore:
    """The parts of one split, backbone and fingerprint.

    A part is a .npz file with its own checksum behind it: the zip's CRC-32 leaves out the zip's directory, and is not
    looked at where a damaged header makes an array shorter. Its name is the digest of the images it holds, so that
    writing one twice is harmless. The folder is made with the first part.

    Args:
        folder: {backbone}.parts/{fingerprint}, beside the cache file.
        owner: begins the names of the parts that are added, and only such parts are read; "" for all parts there are.
    """

    def __init__(self, folder: Path, owner: str = "") -> None:
        self.folder = folder
        self._owner = owner

    def add(self, rows: Rows) -> None:
        """Write rows as one part, flushed to the disk.

        Raises:
            InputError: the disk is full or the folder cannot be written.
        """
        images = zip(rows.image_ids, rows.digests, strict=True)
        content = digest(b"".join(image_id.encode() + b"\0" + known for image_id, known in images))
        archive = io.BytesIO()
        np.savez(
            archive,
            image_ids=np.array(rows.image_ids),
            digests=np.frombuffer(b"".join(rows.digests), np.uint8).reshape(-1, DIGEST_BYTES),
            features=rows.features,
            facts=np.array([astuple(facts)[:6] for facts in rows.facts], np.float64),
            groups=np.array([facts.group for facts in rows.facts], np.str_),
            repaired=np.array([facts.is_repaired for facts in rows.facts], bool),
            positions=np.array([facts.position for facts in rows.facts], np.float64),  # None becomes NaN
            seconds=np.array([] if rows.seconds is None else [rows.seconds], np.float64),
            made_by=np.array([rows.device, rows.engine]),
        )
        with replacing(self.folder / f"{self._owner}{content.hex()}.npz") as temporary, temporary.open("wb") as file:
            file.write(archive.getbuffer())
            file.write(digest(archive.getbuffer()))

    def __iter__(self) -> Iterator[Rows]:
        """Read the parts one by one, in the order of their names.

        A part that is not what was written is removed, with a warning: its rows will be extracted again.

        Raises:
            InputError: the system does not give a part, which may be whole.
        """
        for path in sorted(self.folder.glob(f"{self._owner}[!.]*.npz")):
            try:
                content = memoryview(path.read_bytes())
            except OSError as error:
                raise InputError(f"{path} cannot be read: {cause_of(error)} Its rows may be whole.") from None
            try:
                archive, checksum = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
                if digest(archive) != checksum:
                    raise ValueError("its checksum fails")
                with np.load(io.BytesIO(archive)) as part:
                    features = part["features"]
                    _refuse_misfits(len(part["image_ids"]), features, part["digests"], part["facts"])
                    of_scans = zip(*(part[name].tolist() for name in ("groups", "positions", "repaired")), strict=True)
                    yield Rows(
                        tuple(part["image_ids"].tolist()),
                        tuple(known.tobytes() for known in part["digests"]),
                        features,
                        tuple(
                            _facts(numbers, *of_scan)
                            for numbers, of_scan in zip(part["facts"].tolist(), of_scans, strict=True)
                        ),
                        next(iter(part["seconds"].tolist()), None),
                        *part["made_by"].tolist(),
                    )
            except (KeyError, ValueError, BadZipFile) as error:  # KeyError: a part of an earlier version
                logger.warning("%s is damaged (%s): it is removed, and its rows will be extracted again", path, error)
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all parts, of other fingerprints too: the cache file now holds what they held."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)


def _refuse_misfits(rows: int, features: np.ndarray, *others: np.ndarray) -> None:
    """Refuse arrays of a part that are not of so many rows.

    Raises:
        ValueError: one is not.
    """
    if features.ndim != 3 or features.dtype.kind != "f" or {rows} != {len(array) for array in (features, *others)}:
        raise ValueError("its arrays are not those of as many rows")


def _facts(numbers: list[float], group: str, position: float, is_repaired: bool) -> ImageFacts:
    """Make the facts of an image from what a part keeps: their six numbers, and those of scans."""
    height, width, channels, bit_depth = map(int, numbers[:4])
    where = None if math.isnan(position) else position
    return ImageFacts(height, width, channels, bit_depth, numbers[4], numbers[5], group, where, is_repaired)
