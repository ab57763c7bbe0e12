"""What `python -m extract convert` does: write the images of a data set as PNG, scans through their window."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from extract.images.decoding import decode
from extract.images.reading import Reading, UnreadableImage
from extract.options import ConvertOptions
from extract.pipeline import Images
from extract.run import choose_window, find_images
from extract.runtime import cores
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError
from features.common.text import first_few, make_console
from features.dataset.layout import is_table


def convert(options: ConvertOptions) -> int:
    """Run the command.

    Returns:
        The exit code: 0 done, 3 done but some images could not be read.

    Raises:
        InputError: bad options or bad input, or OUT cannot be written.
    """
    out = options.out
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise InputError(f"{out} exists and is not an empty folder. Name another folder, or remove this one first.")
    console = make_console()
    images = find_images(options.data, None, options)
    reading = Reading(window=choose_window(options.window, images, None, console.print))
    try:
        failed = [reason for split in images for reason in _convert_split(split, out / split.split, reading)]
        for table in sorted(path for path in options.data.iterdir() if is_table(path.name)):
            shutil.copyfile(table, out / table.name)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}. Make room, or name a folder that can be written.") from error
    written = sum(len(split.image_ids) for split in images) - len(failed)
    console.print(f"{out}: {written:,} images as PNG, window {reading.window}, and the tables as they were")
    if failed:
        console.print(f"{len(failed):,} images could not be read: {first_few(failed, 3, '; ')}")
    return EXIT_REJECTED if failed else 0


def _convert_split(images: Images, folder: Path, reading: Reading) -> list[str]:
    """Write one split; say which images cannot be read, and why."""
    with ThreadPoolExecutor(cores(), "converter") as threads:
        write = partial(_convert_image, folder, reading)
        return [reason for reason in threads.map(write, images.image_ids, images.paths) if reason]


def _convert_image(folder: Path, reading: Reading, image_id: str, path: Path) -> str:
    """Write one image; say why it cannot be read, or nothing."""
    try:
        encoded = path.read_bytes()
    except OSError as error:
        return f"{image_id}: the file cannot be read: {error.strerror}"
    try:
        pixels, _ = decode(encoded, image_id, reading)
    except UnreadableImage as error:
        return f"{image_id}: {error}"
    target = folder / f"{image_id}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    _, png = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    target.write_bytes(png.tobytes())
    return ""
