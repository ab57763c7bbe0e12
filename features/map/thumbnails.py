"""Small pictures of images, CACHE/{split}/thumbnails/{number}.zip: stage 1 draws them, pages show them.

A picture is called by the digest of the image's bytes, so that an image that has changed has none. Each archive is
written whole or not at all; a further one has what the earlier ones miss.
"""

import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from features.common.commands import write_command
from features.common.errors import InputError, cause_of
from features.common.files import DIGEST_BYTES, replacing

THUMBNAILS = "thumbnails"
#: Longer side in pixels, and quality of WebP, 0-100: about a kilobyte each. Figures: docs/decisions.md.
PICTURE_SIDE, PICTURE_QUALITY = 96, 60
#: A picture of that size is never larger, in bytes.
_LARGEST = PICTURE_SIDE * PICTURE_SIDE * 4
_ENDING = ".webp"


class Thumbnails:
    """The small pictures of the images of one split.

    Args:
        root: the cache's folder.
        split: the folder in it.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._root, self._folder = root, root / split / THUMBNAILS

    def digests(self) -> set[bytes]:
        """The digests of the images that have one; `InputError` says that an archive is damaged."""
        found = set[bytes]()
        for path in self._archives():
            with self._opened(path) as archive:
                found |= {own for name in archive.namelist() if (own := _digest_of(name))}
        return found

    def read(self, digests: Collection[bytes]) -> dict[bytes, bytes]:
        """Read the pictures, WebP, of some images by the digests of their bytes; those that there are.

        Raises:
            InputError: an archive is damaged.
        """
        wanted, found = set(digests), {}
        for path in self._archives():
            with self._opened(path) as archive:
                for entry in archive.infolist():
                    own = _digest_of(entry.filename)
                    if own not in wanted or own in found:
                        continue
                    if entry.file_size > _LARGEST or entry.compress_type != zipfile.ZIP_STORED:
                        raise zipfile.BadZipFile(f"{entry.filename} is not a picture of Headbank")
                    found[own] = archive.read(entry)
        return found

    def add(self, pictures: Mapping[bytes, bytes]) -> None:
        """Write pictures, WebP, by the digests of their images, as a further archive.

        Raises:
            InputError: the folder cannot be written to, or the disk is full.
        """
        number = len(self._archives())
        while (path := self._folder / f"{number:05d}.zip").exists():
            number += 1
        with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for own, picture in pictures.items():
                archive.writestr(zipfile.ZipInfo(f"{own.hex()}{_ENDING}"), picture)

    def _archives(self) -> list[Path]:
        return sorted(self._folder.glob("[!.]*.zip"))

    @contextmanager
    def _opened(self, path: Path) -> Iterator[zipfile.ZipFile]:
        """Open an archive; an `InputError` says that it, or what is read of it, is damaged."""
        try:
            with zipfile.ZipFile(path) as archive:
                yield archive
        except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
            remedy = write_command("extract thumbnails", "DATA", "--cache", self._root)
            raise InputError(f"{path} is damaged ({error}). Remove it, and run: {remedy}") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {cause_of(error)}") from None


def _digest_of(name: str) -> bytes:
    """The digest that an entry is called by; b"" where it is called otherwise."""
    stem = name.removesuffix(_ENDING)
    try:
        digest = bytes.fromhex(stem)
    except ValueError:
        return b""
    return digest if len(digest) == DIGEST_BYTES and name != stem else b""
