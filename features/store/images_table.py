"""What stage 1 saw of each image: CACHE/{split}/images.csv; and those that it could not read: CACHE/rejected.csv."""

import csv
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Self, TypeVar

from features.common.errors import InputError, cause_of
from features.common.files import DIGEST_BYTES, digest_file, hold, replacing

_Parsed = TypeVar("_Parsed")
#: An image whose standard deviation is below this share of its scale shows nothing: 2.55 grey levels of 255.
BLANK_SHARE = 0.01


@dataclass(frozen=True, slots=True)  # there may be a million
class ImageFacts:
    """One image as it was decoded, before any resizing.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
        channels: 1 grey, 3 colour, 4 colour with transparency.
        bit_depth: bits per channel in the file, 8 or 16.
        mean: mean over all pixels and colour channels, in the grey levels that backbones see (0 to 255).
        std: standard deviation over the same.
        group: of a scan: the patient, or else the study or the volume, as a salted hash; "" where none is known.
        position: of a scan: where it lies along the body, in mm or as the number of the slice; None where unknown.
        is_repaired: of CT: whether its values had wrapped around, and were brought back.
    """

    height: int
    width: int
    channels: int
    bit_depth: int
    mean: float
    std: float
    group: str = ""
    position: float | None = None
    is_repaired: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether all pixels are (nearly) the same."""
        return self.std < BLANK_SHARE * 255


@dataclass(frozen=True, slots=True)  # there may be a million
class Stamp:
    """Size in bytes and times of a file: as long as they stay the same, the file is not read again.

    Attributes:
        size: in bytes.
        mtime_ns: when its bytes were written, which programs may set: an older file keeps its time when it is copied.
        ctime_ns: when the system last changed the file, which no program sets.
    """

    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The stamp that a file has now; OSError where there is none."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)  # there may be a million
class SeenImage:
    """One image as stage 1 saw it.

    Attributes:
        digest: BLAKE2b-128 of the file's bytes.
        stamp: of the file, taken before its bytes were read.
        facts: what was decoded.
    """

    digest: bytes
    stamp: Stamp
    facts: ImageFacts


_IMAGES = "images.csv"
_SALT, _SALT_BYTES = "group.salt", 32
_HEADER = ("id", "digest", *(field.name for kind in (Stamp, ImageFacts) for field in fields(kind)))
#: Columns that earlier files do not have, and what stands for them: a time of no file, so that images are read again.
_ADDED = {"ctime_ns": "-1", "group": "", "position": "", "is_repaired": "False"}


class FactsTable:
    """The images of a split, by id, each as it was last seen.

    Args:
        path: CACHE/{split}/images.csv; it need not exist.

    Raises:
        InputError: the file is there but is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = _read_once(path, Stamp.of(path)) if path.exists() else {}

    @classmethod
    def of_split(cls, root: Path, split: str) -> Self:
        """The table of a split, in a cache's folder."""
        return cls(root / split / _IMAGES)

    @classmethod
    def of_cache(cls, root: Path) -> list[Self]:
        """The tables of all splits that have one, in a cache's folder."""
        return [cls(path) for path in sorted(root.glob(f"[!.]*/{_IMAGES}"))]

    def knows(self, image_id: str, digest: bytes) -> bool:
        """Whether the facts of exactly these bytes are known."""
        return self._rows.get(image_id, b"").startswith(digest)

    def digest(self, image_id: str, stamp: Stamp) -> bytes | None:
        """The digest of an image that still has the stamp with which it was seen; None: it has to be read."""
        row = self._rows.get(image_id, b"")
        same = row.startswith(_pack_stamp(stamp), DIGEST_BYTES)
        return row[:DIGEST_BYTES] if same else None

    def renew(self, stamps: Mapping[str, Stamp]) -> None:
        """Note the stamps of files that were read again and have the bytes that were seen."""
        new = {image_id: stamp for image_id, stamp in stamps.items() if not self.digest(image_id, stamp)}
        seen = {image_id: replace(_unpack(self._rows[image_id]), stamp=stamp) for image_id, stamp in new.items()}
        self.add(seen, list(self._rows))

    def __len__(self) -> int:
        """Number of images."""
        return len(self._rows)

    def __contains__(self, image_id: object) -> bool:
        """Whether facts of an image are known, whatever its bytes."""
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> ImageFacts:
        """The facts of one image; KeyError where it is unknown."""
        return _unpack(self._rows[image_id]).facts

    def group(self, image_id: str) -> str:
        """The group of one image, "" where it names nobody; KeyError where it is unknown."""
        return _unpack_group(self._rows[image_id])

    def add(self, found: Mapping[str, SeenImage], order: Sequence[str]) -> None:
        """Add images by id and write the table, if that changes it: ids of `order` first, then the others.

        Two extractions of different backbones may end at the same time, so the table is read again under a lock.
        """
        new = {image_id: _pack(seen) for image_id, seen in found.items()}
        if new.items() <= self._rows.items():
            return
        with hold(self.path.with_name(f".{_IMAGES}.lock"), wait=True):
            rows = _read_images(self.path) | new
            ordered = dict.fromkeys([*(image_id for image_id in order if image_id in rows), *rows])
            _write(self.path, _HEADER, ((image_id, *_cells(_unpack(rows[image_id]))) for image_id in ordered))
            self._rows = rows


def _read_images(path: Path) -> dict[str, bytes]:
    """Read a table: of each id what was seen, packed, as a million of objects would take gigabytes."""
    return {image_id: _pack(seen) for image_id, seen in _read_csv(path, _HEADER, _ADDED, _read_image)}


@lru_cache(maxsize=2)
def _read_once(path: Path, stamp: Stamp) -> dict[str, bytes]:
    """Read a table once for as long as it stays the same: of a million images that takes half a minute."""
    return _read_images(path)


def forget_tables() -> None:
    """Let go of what was read last: 0.2 GB of a million images."""
    _read_once.cache_clear()


#: The digest, the stamp, and the facts but the group, whose characters follow; a position that is not known is NaN.
_PACKED = Struct("<16s 36s 4i 3d ?")


def _pack(seen: SeenImage) -> bytes:
    """Put what was seen of an image into some 120 bytes."""
    facts = seen.facts
    position = math.nan if facts.position is None else facts.position
    of_pixels = facts.height, facts.width, facts.channels, facts.bit_depth, facts.mean, facts.std
    numbers = _PACKED.pack(seen.digest, _pack_stamp(seen.stamp), *of_pixels, position, facts.is_repaired)
    return numbers + facts.group.encode()


def _pack_stamp(stamp: Stamp) -> bytes:
    """Put a stamp into 36 bytes: nanoseconds of the year 2262 have no room in 8 each."""
    return b"".join(
        number.to_bytes(12, "little", signed=True) for number in (stamp.size, stamp.mtime_ns, stamp.ctime_ns)
    )


def _unpack(packed: bytes) -> SeenImage:
    """Give what `_pack` put together."""
    digest, stamp, height, width, channels, bit_depth, mean, std, position, is_repaired = _PACKED.unpack_from(packed)
    of_stamp = (int.from_bytes(stamp[start : start + 12], "little", signed=True) for start in (0, 12, 24))
    of_scan = _unpack_group(packed), None if math.isnan(position) else position, is_repaired
    return SeenImage(digest, Stamp(*of_stamp), ImageFacts(height, width, channels, bit_depth, mean, std, *of_scan))


def _unpack_group(packed: bytes) -> str:
    """Give the group alone, which takes a tenth of the time of all."""
    return packed[_PACKED.size :].decode()


def _cells(seen: SeenImage) -> tuple[object, ...]:
    """The cells of an image's line after its id."""
    return (seen.digest.hex(), *astuple(seen.stamp), *astuple(seen.facts))


def _read_image(row: Sequence[str]) -> tuple[str, SeenImage]:
    """Read one row: the image's id, and what was seen of it; ValueError where it is not an image."""
    image_id, digest, *cells = row
    try:
        size, mtime_ns, ctime_ns, height, width, channels, bit_depth = map(int, cells[:-5])
        mean, std = map(float, cells[-5:-3])
        if ctime_ns < 0 and bit_depth == 16:  # earlier files hold the file's own units
            mean, std = mean / 257, std / 257
        group, position, is_repaired = cells[-3], float(cells[-2]) if cells[-2] else None, cells[-1] == "True"
        facts = ImageFacts(height, width, channels, bit_depth, mean, std, group, position, is_repaired)
        seen = SeenImage(bytes.fromhex(digest), Stamp(size, mtime_ns, ctime_ns), facts)
    except ValueError:
        raise ValueError(f"the line of {image_id} is not {','.join(_HEADER)}") from None
    top = 255 * (1 + 1e-9)  # the mean of a white image may be rounded up
    in_range = 0 <= mean <= top and 0 <= std <= top and bit_depth in range(1, 33) and len(seen.digest) == DIGEST_BYTES
    of_file = max(abs(size), abs(mtime_ns), abs(ctime_ns)) < 1 << 95
    if not (in_range and of_file and min(height, width, channels) > 0 and max(height, width, channels) < 1 << 31):
        raise ValueError(f"the line of {image_id} holds what no image has")
    return image_id, seen


def group_salt(root: Path) -> bytes:
    """The random bytes with which a cache hashes whom its scans are of; made where they are missing.

    Without them a hash of a patient's id could be found by trying all ids.
    """
    path = root / _SALT
    with hold(root / f".{_SALT}.lock", wait=True):
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(secrets.token_bytes(_SALT_BYTES))
        return path.read_bytes()


@dataclass(frozen=True)
class Rejection:
    """An image that is there but could not be read.

    Attributes:
        image_id: its id.
        path: its path within the data set; starts with the split's name and a slash.
        reason: why it could not be read, in words.
        digest: BLAKE2b-128 of the file's bytes, as hexadecimal digits; "" where not even these could be read.
    """

    image_id: str
    path: str
    reason: str
    digest: str

    def is_outdated(self, path: Path) -> bool:
        """Whether the image's file has other bytes now, or bytes at all; False where that is not known."""
        if self.digest == _UNKNOWN:
            return False
        try:
            return digest_file(path).hex() != self.digest
        except OSError:
            return False


_REJECTED = "rejected.csv"
_REJECTED_HEADER = ("id", "path", "reason", "digest")
#: The digest of an image that was rejected before digests were kept.
_UNKNOWN = "unknown"


def read_rejections(root: Path) -> list[Rejection]:
    """Read the rejected images of a cache; without a rejected.csv there are none.

    Raises:
        InputError: the file is not such a table.
    """
    return list(_read_csv(root / _REJECTED, _REJECTED_HEADER, {"digest": _UNKNOWN}, lambda row: Rejection(*row)))


def replace_rejections(root: Path, splits: Iterable[str], found: Sequence[Rejection]) -> None:
    """Replace the rejections of splits whose images have all been read; others stay. No rejection at all: no file."""
    renewed = tuple(f"{split}/" for split in splits)
    with hold(root / f".{_REJECTED}.lock", wait=True):
        kept = [rejection for rejection in read_rejections(root) if not rejection.path.startswith(renewed)]
        rejections = [*kept, *found]
        if rejections:
            _write(root / _REJECTED, _REJECTED_HEADER, map(astuple, rejections))
        else:
            (root / _REJECTED).unlink(missing_ok=True)


def _read_csv(
    path: Path, header: tuple[str, ...], added: Mapping[str, str], parse: Callable[[list[str]], _Parsed]
) -> Iterator[_Parsed]:
    """Read a CSV file and parse its rows, for which ValueError is caught. A missing file has none.

    `added` names the columns that an earlier file may be without, and gives their cells.
    """
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.reader(file)
            first = next(lines, [])
            columns = {name: number for number, name in enumerate(first)}
            known = tuple(name for name in header if name in columns or name not in added)
            if tuple(first) != known:
                raise ValueError(f"its lines are not {','.join(header)}")
            for line in lines:
                if len(line) != len(first):
                    raise ValueError(f"its lines are not {','.join(header)}")
                yield parse([line[columns[name]] if name in columns else added[name] for name in header])
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}. Remove it: the next extraction writes it again.") from None


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
