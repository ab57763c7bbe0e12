"""What `python -m extract thumbnails` does: draw small pictures of the images of a cache, for the pages of features."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2

from extract.choices import find_images
from extract.images.decoding import UnreadableImage, decode
from extract.images.files import ImageFiles
from extract.images.reading import Reading
from extract.images.resizing import shrink
from extract.options import ThumbnailOptions
from extract.runtime import cores
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError
from features.common.files import hold
from features.common.text import count_things, first_few, make_console, progress_bar
from features.map.images import refuse_unknown
from features.map.thumbnails import PICTURE_QUALITY, PICTURE_SIDE, Thumbnails
from features.store.cache import FeatureCache, default_cache

#: Images that are drawn before they are written, as one archive.
_BLOCK = 4096


class _Wanted(NamedTuple):
    """An image of the cache: its file, and the digest of the bytes that its features are of."""

    image_id: str
    path: Path
    digest: bytes


def draw_thumbnails(options: ThumbnailOptions) -> int:
    """Draw the pictures that are missing in CACHE; what is drawn stays, whatever ends the command.

    Returns:
        The exit code: 0 done, 3 done but some images are left out.

    Raises:
        InputError: bad input, or the cache cannot be written to.
    """
    console = make_console()
    cache = FeatureCache(options.cache or default_cache(options.data), options.data)
    left_out: list[str] = []
    found, known = False, 0
    for of_split in find_images(
        options.data, options.split, options, lambda line: console.print(f"understood: {line}")
    ):
        backbones = cache.backbones(of_split.split)
        if not backbones:
            continue
        found = True
        file, store = cache.open(of_split.split, backbones[0]), Thumbnails(cache.root, of_split.split)
        with hold(cache.root / of_split.split / ".thumbnails.lock"):
            there = store.digests()
            pairs = zip(of_split.image_ids, of_split.paths, strict=True)
            cached = [_Wanted(i, path, file.index[i]) for i, path in pairs if i in file.index]
            known += len(cached)
            wanted = [image for image in cached if image.digest not in there]
            console.print(
                f"{of_split.split}: {len(wanted):,} of {count_things(len(cached), 'image')} without a picture"
            )
            with progress_bar("pictures", len(wanted)) as advance:
                for pictures, reasons in _draw_blocks(wanted, Reading.of(file.recipe), advance):
                    if pictures:
                        store.add(pictures)
                    left_out += [f"{of_split.split}/{reason}" for reason in reasons]
    if not found:
        raise InputError(f"{cache.root} holds no features of {options.data}. Run: {cache.remedy()}")
    refuse_unknown(cache, known, options.data)
    if left_out:
        console.print(f"left out: {count_things(len(left_out), 'image')}: {first_few(left_out, 3, '; ')}")
    return EXIT_REJECTED if left_out else 0


def _draw_blocks(
    wanted: list[_Wanted], reading: Reading, advance: Callable[[], None]
) -> Iterator[tuple[dict[bytes, bytes], list[str]]]:
    """Draw images, some thousands at a time: WebP by digest, and why others are left out."""
    files = ImageFiles([image.path for image in wanted])
    with ThreadPoolExecutor(cores(), "drawer") as threads:
        for start in range(0, len(wanted), _BLOCK):
            block = wanted[start : start + _BLOCK]
            drawn = list(threads.map(partial(_draw, reading, files, advance), block))
            yield (
                {image.digest: own for image, own in zip(block, drawn, strict=True) if isinstance(own, bytes)},
                [own for own in drawn if isinstance(own, str)],
            )


def _draw(reading: Reading, files: ImageFiles, advance: Callable[[], None], image: _Wanted) -> bytes | str:
    """Draw one image if it is still the file that its features are of; or say why not."""
    try:
        _, encoded, digest = files.read(image.path)
        if digest != image.digest:
            return f"{image.image_id}: it has changed since its features were extracted"
        pixels, _ = decode(encoded, image.image_id, reading)
    except OSError as error:
        return f"{image.image_id}: the file cannot be read: {error.strerror}"
    except UnreadableImage as error:
        return f"{image.image_id}: {error}"
    except MemoryError:
        return f"{image.image_id}: there is not enough memory to decode it"
    finally:
        advance()
    small = cv2.cvtColor(shrink(pixels, PICTURE_SIDE), cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, PICTURE_QUALITY])[1])
