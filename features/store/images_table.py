"""What stage 1 saw of each image on the way: CACHE/{split}/images.csv."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from features.common.errors import InputError
from features.common.files import hold, replacing

#: An image whose standard deviation is below this share of its scale shows nothing: 2.55 grey levels of 255.
BLANK_SHARE = 0.01


@dataclass(frozen=True)
class ImageFacts:
    """One image as it was decoded, before any resizing.

    Attributes:
        height: rows, in pixels.
        width: columns, in pixels.
        channels: 1 grey, 3 colour, 4 colour with transparency.
        bit_depth: bits per channel, 8 or 16.
        mean: mean over all pixels and colour channels, in the file's own units (0 to 2**bit_depth - 1).
        std: standard deviation over the same.
    """

    height: int
    width: int
    channels: int
    bit_depth: int
    mean: float
    std: float

    @property
    def is_blank(self) -> bool:
        """Whether all pixels are (nearly) the same."""
        return self.std < BLANK_SHARE * (2**self.bit_depth - 1)


_FACTS = tuple(field.name for field in fields(ImageFacts))
_HEADER = ("id", "digest", *_FACTS)


class FactsTable:
    """The facts of a split's images, by id, each valid for one digest of the file's bytes.

    Args:
        path: CACHE/{split}/images.csv; it need not exist.

    Raises:
        InputError: the file is there but is not such a table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = _read(path)

    def knows(self, image_id: str, digest: bytes) -> bool:
        """Whether the facts of exactly these bytes are known."""
        row = self._rows.get(image_id)
        return row is not None and row[0] == digest.hex()

    def __len__(self) -> int:
        """Number of images."""
        return len(self._rows)

    def __contains__(self, image_id: object) -> bool:
        """Whether facts of an image are known, whatever its bytes."""
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> ImageFacts:
        """The facts of one image; KeyError where it is unknown."""
        return self._rows[image_id][1]

    def add(self, found: Mapping[str, tuple[bytes, ImageFacts]], order: Sequence[str]) -> None:
        """Add facts and write the table: images of `order` first, in that order, then the others.

        Two extractions of different backbones may end at the same time, so the table is read again under a lock.

        Args:
            found: image id -> digest of the file's bytes, facts.
            order: image ids of the data set.
        """
        with hold(self.path.with_name(".images.csv.lock"), wait=True):
            rows = _read(self.path)
            rows.update({image_id: (digest.hex(), facts) for image_id, (digest, facts) in found.items()})
            ordered = dict.fromkeys([*(image_id for image_id in order if image_id in rows), *rows])
            with (
                replacing(self.path) as temporary,
                temporary.open("w", encoding="utf-8", newline="") as file,
            ):
                writer = csv.writer(file)
                writer.writerow(_HEADER)
                writer.writerows((image_id, rows[image_id][0], *astuple(rows[image_id][1])) for image_id in ordered)
            self._rows = rows


def _read(path: Path) -> dict[str, tuple[str, ImageFacts]]:
    """Read the table: image id -> digest in hexadecimal digits, facts. A missing file is an empty table."""
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != _HEADER:
                raise ValueError(f"its first line is not {','.join(_HEADER)}")
            return {row[0]: (row[1], _read_facts(row, reader.line_num)) for row in reader}
    except (ValueError, IndexError, TypeError, OSError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}. Remove it: the next extraction writes it again.") from None


def _read_facts(row: Sequence[str], line: int) -> ImageFacts:
    """Read the facts of one row.

    Raises:
        ValueError: they are none; the message names the line.
    """
    try:
        height, width, channels, bit_depth = (int(cell) for cell in row[2:6])
        mean, std = (float(cell) for cell in row[6:])
    except ValueError:
        raise ValueError(f"line {line} is not {','.join(_HEADER)}") from None
    top = 2**bit_depth - 1 if 1 <= bit_depth <= 32 else 0
    top *= 1 + 1e-9  # the mean of a white image may be rounded up
    if min(height, width, channels) < 1 or not (0 <= mean <= top and 0 <= std <= top and top):
        raise ValueError(f"line {line} holds what no image has")
    return ImageFacts(height, width, channels, bit_depth, mean, std)
