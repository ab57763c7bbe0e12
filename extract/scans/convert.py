"""What `python -m extract convert` does: write the images of a data set as PNG, scans through their window."""

import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, count
from pathlib import Path, PurePosixPath

import cv2

from extract.choices import choose_window, say_plain_images
from extract.images.decoding import decode
from extract.images.files import ImageFiles
from extract.images.reading import Reading, UnreadableImage
from extract.options import ConvertOptions
from extract.pipeline import Images
from extract.report import repaired_words
from extract.runtime import cores
from features.common.cli import EXIT_REJECTED
from features.common.errors import InputError
from features.common.text import count_things, first_few, make_console
from features.dataset.dataset import read_layout
from features.dataset.groups import write_groups_file
from features.dataset.layout import ImageFile, Layout, is_table
from features.store.images_table import ImageFacts

#: The file of the groups of scans; another number where the data set has a table of that name.
SCAN_GROUPS = "groups.csv"
#: How the tables begin that are not plain text, and the ending by which OUT recognises each.
_TABLE_MARKS = {b"PK\x03\x04": ".xlsx", b"\x1f\x8b": ".csv.gz"}


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
    if out.resolve().is_relative_to(options.data.resolve()):
        raise InputError(f"{out} lies within {options.data}, and would become a part of it. Name a folder beside it.")
    layout, images = read_layout(options.data, options)
    if not images:
        raise InputError(
            f"{options.data}: the tables name none of the images, so that none is left to convert. Check their ids, or "
            "convert all: --unlabelled predict"
        )
    _refuse_clashes([image.place for image in images], options.data)
    every = Images("", [image.image_id for image in images], [image.path for image in images])
    files, console = ImageFiles(every.paths), make_console()
    window = choose_window(options.window, [every], None, console.print)
    say_plain_images([every], window, console.print)
    reading = Reading(window=window, salt=secrets.token_bytes(32))
    try:
        with ThreadPoolExecutor(cores(), "converter") as threads:
            facts, reasons = zip(*threads.map(partial(_convert_image, out, reading, files), images), strict=True)
        for table, copy in _copies(layout, options.table, out):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(table, copy)
            if table.name != copy.name:
                console.print(f"{table} is {copy}: the table of all images")
        read = [(image, of_image) for image, of_image in zip(images, facts, strict=True) if of_image]
        groups = [of_image.group for _, of_image in read]
        numbered = _number_groups([image.image_id for image, _ in read], groups)
        groups_file = _free_name(out)
        if numbered:
            write_groups_file(groups_file, numbered, safe=False)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error}. Make room, or name a folder that can be written.") from error
    repaired = [image.place for image, of_image in read if of_image.is_repaired]
    failed = [reason for reason in reasons if reason]
    console.print(f"{out}: {count_things(len(read), 'image')} as PNG, window {reading.window}, and the tables")
    if numbered:
        alone = groups.count("")
        others = f"; {count_things(alone, 'image')} of nobody known, each a group of its own" if alone else ""
        own = f" ({SCAN_GROUPS} is a table of DATA)" if groups_file.name != SCAN_GROUPS else ""
        console.print(
            f"groups: PNG does not say whose the scans are, {groups_file} does{own}: {len({*groups} - {''}):,} "
            f"patients, studies or volumes, as numbers{others}. Where no table has groups: --groups "
            f"{shlex.quote(str(groups_file))}"
        )
    elif len({*groups} - {""}) > 1:
        console.print(
            "warning: the patients of the scans are lost: the same ids are those of different patients in several "
            "folders, which a file of groups cannot say. Name the groups in the tables."
        )
    if repaired:
        console.print(f"warning: {repaired_words(repaired, len(read))}")
    if failed:
        console.print(
            f"{count_things(len(failed), 'image')} could not be read: {first_few(failed, 3, '; ')}. Rows that name "
            "them: --missing skip"
        )
    return EXIT_REJECTED if failed else 0


def _convert_image(out: Path, reading: Reading, files: ImageFiles, image: ImageFile) -> tuple[ImageFacts | None, str]:
    """Write one image to its place; give its facts, or say why it cannot be read."""
    try:
        pixels, facts = decode(files.read(image.path).encoded, image.image_id, reading)
    except OSError as error:
        return None, f"{image.image_id}: the file cannot be read: {error.strerror}"
    except UnreadableImage as error:
        return None, f"{image.image_id}: {error}"
    except MemoryError:
        return None, f"{image.image_id}: there was not enough memory to decode it"
    target = out / f"{image.place}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    _, png = cv2.imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    target.write_bytes(png.tobytes())
    return facts, ""


def _copies(layout: Layout, named: Path | None, out: Path) -> Iterator[tuple[Path, Path]]:
    """The tables of a data set, each with its place below `out`.

    One that was named is the only one, for others might be taken for it, and is called `labels`, for its own name might
    speak of one split.
    """
    if named is not None and layout.shared is not None:
        with layout.shared.open("rb") as file:
            start = file.read(4)
        ending = next((ending for mark, ending in _TABLE_MARKS.items() if start.startswith(mark)), ".csv")
        yield layout.shared, out / f"labels{ending}"
        return
    used = [path for path in (layout.shared, *layout.tables.values()) if path is not None]
    for folder in dict.fromkeys([layout.root, *(path.parent for path in used)]):
        for table in sorted(path for path in folder.iterdir() if is_table(path.name)):
            yield table, out / table.relative_to(layout.root)


def _refuse_clashes(places: Sequence[str], data: Path) -> None:
    """Refuse images of which one becomes a file where others need a folder."""
    folders = {parent.as_posix(): place for place in places for parent in PurePosixPath(place).parents}
    for place in places:
        if f"{place}.png" in folders:
            raise InputError(
                f"{data}: {place} becomes the file {place}.png, where {folders[f'{place}.png']} needs a folder. Rename "
                "one of them."
            )


def _free_name(out: Path) -> Path:
    """The file of the groups, which takes the place of no table."""
    names = chain([SCAN_GROUPS], (f"groups_{number}.csv" for number in count(2)))
    return next(out / name for name in names if not (out / name).exists())


def _number_groups(image_ids: Sequence[str], groups: Sequence[str]) -> Mapping[str, str]:
    """Give the groups of N images numbers, by id; an image without one has one of its own.

    Returns:
        Nothing where there are not two groups, or where one id is in two.
    """
    numbers: dict[str, str] = {}
    found: dict[str, str] = {}
    for image_id, group in zip(image_ids, groups, strict=True):
        number = numbers.setdefault(group or f"alone {image_id}", str(len(numbers) + 1))
        if found.setdefault(image_id, number) != number:
            return {}
    return found if len({*groups} - {""}) > 1 else {}
