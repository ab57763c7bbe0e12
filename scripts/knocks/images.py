"""Damaged images of every plain format: mutated bytes, and what is called an image but is none."""

import io
import os
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.knocks.bulk import LOSSY, Specimen, play_bulk
from scripts.knocks.case import CORRECT, LOST, REJECTED, Case, Kind, Verdict
from scripts.knocks.commands import EXTRACTING, ROOT, Surroundings, run
from scripts.knocks.damage import DAMAGES, choose
from scripts.knocks.reference import read_image
from scripts.knocks.stage import SIDE, Stage, write_data

#: One case in so many is not a regular file, but something else under an image's name.
EVERY = 40


def _saved(form: str, mode: str, **options: object) -> Callable[[random.Random], bytes]:
    """Make a writer of random images in one format and mode of Pillow."""

    def write(generator: random.Random) -> bytes:
        width, height = (generator.choice((SIDE, SIDE, 2 * SIDE + 5, 90)) for _ in range(2))
        channels = {"L": 1, "RGB": 3, "RGBA": 4, "P": 1, "LA": 2, "I;16": 1, "1": 1}[mode]
        ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + 40 * np.arange(channels)
        noise = np.frombuffer(generator.randbytes(height * width * channels), np.uint8).reshape(ramp.shape) % 24
        levels = ((ramp + noise) % 256).astype(np.uint8)
        if mode == "I;16":
            image = Image.fromarray((levels[..., 0].astype(np.uint16) << 8) + noise[..., 0].astype(np.uint16))
        elif mode in ("P", "1"):
            image = Image.fromarray(levels[..., 0]).convert(mode)
        else:
            image = Image.fromarray(levels[..., 0] if channels == 1 else levels, mode)
        content = io.BytesIO()
        image.save(content, form, **options)
        return content.getvalue()

    return write


def _upright(turn: int) -> bytes:
    """EXIF that says how to turn an image."""
    exif = Image.Exif()
    exif[274] = turn
    return exif.tobytes()


def _heic(generator: random.Random) -> bytes:
    """One of the HEIC files of the tests: no package in use writes any."""
    return generator.choice(sorted((ROOT / "tests" / "extract" / "images" / "data").glob("*.heic"))).read_bytes()


#: Suffix, writer, and levels by which another decoder may differ.
FORMATS: dict[str, tuple[str, Callable[[random.Random], bytes], float]] = {
    "PNG grey": (".png", _saved("PNG", "L"), 1),
    "PNG colour": (".png", _saved("PNG", "RGB"), 1),
    "PNG 16 bits": (".png", _saved("PNG", "I;16"), 1),
    "PNG palette": (".png", _saved("PNG", "P"), 1),
    "PNG transparency": (".png", _saved("PNG", "RGBA"), 1),
    "PNG grey transparency": (".png", _saved("PNG", "LA"), 1),
    "PNG 1 bit": (".png", _saved("PNG", "1"), 1),
    "JPEG grey": (".jpg", _saved("JPEG", "L", quality=90), LOSSY),
    "JPEG colour": (".jpg", _saved("JPEG", "RGB", quality=90, subsampling=0), LOSSY),
    "JPEG 4:2:0": (".jpeg", _saved("JPEG", "RGB", quality=85, subsampling=2), LOSSY),
    "JPEG progressive": (".jfif", _saved("JPEG", "RGB", progressive=True), LOSSY),
    "JPEG turned": (".jpg", _saved("JPEG", "RGB", quality=90, exif=_upright(6)), LOSSY),
    "TIFF": (".tif", _saved("TIFF", "RGB"), 1),
    "TIFF LZW": (".tif", _saved("TIFF", "RGB", compression="tiff_lzw"), 1),
    "TIFF Deflate": (".tiff", _saved("TIFF", "L", compression="tiff_adobe_deflate"), 1),
    "TIFF PackBits": (".tif", _saved("TIFF", "L", compression="packbits"), 1),
    "TIFF 16 bits": (".tif", _saved("TIFF", "I;16"), 1),
    "BMP": (".bmp", _saved("BMP", "RGB"), 1),
    "BMP palette": (".bmp", _saved("BMP", "P"), 1),
    "WebP lossless": (".webp", _saved("WEBP", "RGB", lossless=True), 1),
    "WebP": (".webp", _saved("WEBP", "RGB", quality=90), LOSSY),
    "GIF": (".gif", _saved("GIF", "P"), 1),
    "JPEG 2000": (".jp2", _saved("JPEG2000", "RGB", irreversible=False), 1),
    "AVIF": (".avif", _saved("AVIF", "RGB", quality=90, speed=10), LOSSY),
    "HEIC": (".heic", _heic, LOSSY),
}


def _bomb(generator: random.Random) -> bytes:
    """A PNG whose header names far more pixels than it holds, with the right checksum."""
    content = bytearray(_saved("PNG", "L")(generator))
    side = generator.choice((50_000, 65_535, 2**31 - 1, 2**31, 0))
    content[16:24] = side.to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def _resealed(generator: random.Random) -> bytes:
    """A PNG whose pixels were damaged before the checksums were made: only its zlib stream tells."""
    content = bytearray(_saved("PNG", "RGB")(generator))
    start = content.index(b"IDAT")
    size = int.from_bytes(content[start - 4 : start], "big")
    for _ in range(generator.choice((1, 3))):
        content[start + 4 + generator.randrange(2, size)] ^= 1 << generator.randrange(8)
    stop = start + 4 + size
    content[stop : stop + 4] = zlib.crc32(content[start:stop]).to_bytes(4, "big")
    return bytes(content)


def make(case: Case) -> Specimen:
    """Make the file of a case."""
    generator = case.random()
    name = f"c{case.number:06d}"
    if case.number % 29 == 7:
        forge = generator.choice((_bomb, _resealed))
        whole = _saved("PNG", "RGB")(generator)
        return Specimen(
            f"{name}.png", forge(generator), name, whole, _read, 1, f"PNG{forge.__name__.replace('_', ' ')}"
        )
    form = list(FORMATS)[case.number % len(FORMATS)]
    suffix, write, tolerance = FORMATS[form]
    whole = write(generator)
    damage = choose(generator)
    content = DAMAGES[damage](whole, generator)
    if damage == "whole" and generator.random() < 0.3:
        suffix = generator.choice((".png", ".jpg", ".tif", ".PNG", ".bmp"))
        damage = f"whole, called {suffix}"
    return Specimen(f"{name}{suffix}", content, name, whole, _read, tolerance, f"{form}, {damage}")


def _read(content: bytes, frame: str) -> np.ndarray:
    """Read an image by Pillow."""
    return read_image(content, SIDE)


def _folder(path: Path, data: Path) -> None:
    path.mkdir()


def _pipe(path: Path, data: Path) -> None:
    os.mkfifo(path)


def _link_to_itself(path: Path, data: Path) -> None:
    path.symlink_to(path.name)


def _link_to_nothing(path: Path, data: Path) -> None:
    path.symlink_to("gone.png")


def _link_to_folder(path: Path, data: Path) -> None:
    path.with_suffix("").symlink_to(data)


def _device(path: Path, data: Path) -> None:
    path.symlink_to("/dev/zero")


def _not_utf8(path: Path, data: Path) -> None:
    Path(os.fsdecode(bytes(path.parent) + b"/\xff\xfe.png")).write_bytes(b"x")


def _backslash(path: Path, data: Path) -> None:
    path.with_name("a\\b.png").write_bytes(b"x")


def _same_id(path: Path, data: Path) -> None:
    path.write_bytes(b"x")
    path.with_suffix(".jpg").write_bytes(b"x")


def _unread(path: Path, data: Path) -> None:
    path.with_suffix(".tga").write_bytes(b"x")


#: What is put under an image's name, and whether the command may go on without a word of it.
ODDITIES: dict[str, tuple[Callable[[Path, Path], None], bool]] = {
    "an empty folder called as an image": (_folder, True),
    "a pipe": (_pipe, False),
    "a link to itself": (_link_to_itself, False),
    "a link to nothing": (_link_to_nothing, False),
    "a link to the folder around it": (_link_to_folder, False),
    "a link to /dev/zero": (_device, False),
    "a name that is not UTF-8": (_not_utf8, False),
    "a name with a backslash": (_backslash, False),
    "two files of one id": (_same_id, False),
    "an image of a format that is not read": (_unread, False),
}


def play_oddity(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Put something else than a file of bytes beside an image."""
    told = list(ODDITIES)[case.number // EVERY % len(ODDITIES)]
    put, may_be_silent = ODDITIES[told]
    data = folder / "data"
    write_data(data, patients=1, slices=1, tests=1)
    (data / "train.csv").unlink()
    put(data / "train" / "odd.png", data)
    ended = run(stage.extract(data, folder / "cache"), Surroundings(folder / "tmp"))
    verdict = ended.failure()
    if verdict is None:
        named = any(word in ended.said for word in ("odd", "\\\\xff", "udc", "a\\b", "\\udcff"))
        if ended.code == 0 and not named and not may_be_silent:
            verdict = Verdict(LOST, f"passed over without a word: {ended.last_line()}")
        else:
            verdict = Verdict(CORRECT if ended.code == 0 else REJECTED, ended.last_line())
    return verdict._replace(story=f"{told}: {verdict.story}")


_play_files = play_bulk(make)


def play(stage: Stage, cases: Sequence[Case], folder: Path) -> Mapping[int, Verdict]:
    """Play the cases: files together, others each in a data set of its own."""
    odd = [case for case in cases if case.number % EVERY == EVERY - 1]
    files = [case for case in cases if case not in odd]
    verdicts: dict[int, Verdict] = {}
    for case in odd:
        (folder / str(case.number)).mkdir()
        verdicts[case.number] = play_oddity(stage, case, folder / str(case.number))
    if files:
        (folder / "files").mkdir()
        verdicts |= _play_files(stage, files, folder / "files")
    return verdicts


IMAGES = Kind(
    "images",
    2000,
    "`extract run` over PNG, JPEG, TIFF, BMP, WebP, GIF, JPEG 2000, AVIF and HEIC files with damaged bytes, wrong "
    "endings and false sizes; pipes, links, devices and odd names in their place",
    "a row is what Pillow reads of the same bytes, or the undamaged image; other files are in `rejected.csv`, "
    "with a reason; whole files are read",
    play,
    batch=125,
    modules=EXTRACTING,
)
