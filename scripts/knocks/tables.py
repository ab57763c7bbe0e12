"""Tables as people, programs and disks leave them: how they are written, what their cells hold, damaged bytes."""

import csv
import gzip
import io
import logging
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scripts.knocks.case import CORRECT, LOST, REJECTED, SILENCE, WRONG, Case, Kind, Verdict, one_by_one
from scripts.knocks.commands import READING, Surroundings, run
from scripts.knocks.damage import DAMAGES, choose
from scripts.knocks.stage import LABELS, Stage

#: Ids of the images, which are empty files: no command that reads tables opens them.
IDS = tuple(f"img{number:02d}" for number in range(12))
Rows = list[list[str]]


@dataclass(frozen=True)
class Writing:
    """How a table is written.

    Attributes:
        encoding: of its text.
        delimiter: between cells.
        end: of lines.
        quoting: of `csv`.
        before: lines before the header.
        compressed: whether by gzip.
    """

    encoding: str = "utf-8"
    delimiter: str = ","
    end: str = "\n"
    quoting: int = csv.QUOTE_MINIMAL
    before: str = ""
    compressed: bool = False

    def write(self, rows: Rows) -> bytes:
        """Write rows."""
        text = io.StringIO()
        csv.writer(text, delimiter=self.delimiter, lineterminator=self.end, quoting=self.quoting).writerows(rows)  # type: ignore[arg-type]
        content = (self.before + text.getvalue()).encode(self.encoding, "replace")
        return gzip.compress(content, mtime=0) if self.compressed else content

    def read(self, content: bytes) -> dict[str, list[list[int | None]]] | None:
        """Read what `write` wrote, maybe damaged since: by id, the labels of each row of it; None where it is no table.

        A label is 0, 1, or None where its cell says neither.
        """
        try:
            text = (gzip.decompress(content) if self.compressed else content).decode(self.encoding, "replace")
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, skipinitialspace=True))
        except (csv.Error, OSError, EOFError, ValueError, zlib.error):
            return None
        rows = [[cell.strip() for cell in row] for row in rows]
        start = next((place for place, row in enumerate(rows) if {"ID", *LABELS} <= {*row}), None)
        if start is None:
            return None
        header = rows[start]
        places = [header.index(name) for name in LABELS]
        found: dict[str, list[list[int | None]]] = {}
        for row in rows[start + 1 :]:
            if len(row) == len(header):
                name = row[header.index("ID")].rpartition("/")[2].removesuffix(".png")
                found.setdefault(name, []).append([_VALUES.get(row[place].lower()) for place in places])
        return found


_VALUES = {
    **dict.fromkeys(("0", "0.0", "0,0", "00", "false", "no", "negative", "-0", "+0", "f", "n"), 0),
    **dict.fromkeys(("1", "1.0", "1,0", "01", "true", "yes", "positive", "+1", "t", "y"), 1),
}


def _writings(generator: random.Random) -> tuple[str, Writing]:
    """Choose how a table is written; in words, too."""
    told, encoding = generator.choice(
        (("UTF-8", "utf-8"), ("UTF-8", "utf-8"), ("UTF-8 with a mark", "utf-8-sig"), ("UTF-16", "utf-16"),
         ("Latin-1", "latin-1"))
    )  # fmt: skip
    delimiter = generator.choice((",", ",", ";", "\t", "|"))
    end = generator.choice(("\n", "\n", "\r\n"))
    quoting = generator.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    before = generator.choice(("", "", "", f"sep={delimiter}{end}", f"# a comment{end}", end))
    compressed = generator.random() < 0.1
    words = (
        f"{told}, {delimiter!r}{', compressed' if compressed else ''}{f', begins with {before!r}' if before else ''}"
    )
    return words, Writing(encoding, delimiter, end, quoting, before, compressed)


def sound_rows(generator: random.Random) -> Rows:
    """A table of all images: header, and a row each, in any order."""
    rows = [[name, *(str(generator.randint(0, 1)) for _ in LABELS), f"p{place // 2}"] for place, name in enumerate(IDS)]
    for place, value in ((1, "0"), (2, "1")):  # each label has both values
        rows[0][place], rows[1][place] = value, "10"[int(value)]
    generator.shuffle(rows)
    return [["ID", *LABELS, "patient"], *rows]


def _some(rows: Rows, generator: random.Random) -> list[str]:
    """One of the rows."""
    return rows[generator.randrange(1, len(rows))]


def _cell(*values: str) -> Callable[[Rows, random.Random], None]:
    """Make what puts odd values into one or more cells of labels."""

    def put(rows: Rows, generator: random.Random) -> None:
        for _ in range(generator.choice((1, 1, 3))):
            _some(rows, generator)[generator.choice((1, 2))] = generator.choice(values)

    return put


def _ids(*values: str) -> Callable[[Rows, random.Random], None]:
    """Make what puts odd values into the id of a row."""

    def put(rows: Rows, generator: random.Random) -> None:
        _some(rows, generator)[0] = generator.choice(values)

    return put


def _duplicate(rows: Rows, generator: random.Random) -> None:
    rows.append([*_some(rows, generator)])


def _contradict(rows: Rows, generator: random.Random) -> None:
    copy = [*_some(rows, generator)]
    copy[1] = "10"[int(copy[1])]
    rows.append(copy)


def _ragged(rows: Rows, generator: random.Random) -> None:
    row = _some(rows, generator)
    row.append("1") if generator.random() < 0.5 else row.pop()


def _missing_row(rows: Rows, generator: random.Random) -> None:
    rows.remove(_some(rows, generator))


def _huge(rows: Rows, generator: random.Random) -> None:
    _some(rows, generator)[3] = "x" * generator.choice((131_071, 131_073, 3_000_000))


def _many_columns(rows: Rows, generator: random.Random) -> None:
    for row in rows:
        row += [f"{row[0]}{place}" for place in range(3000)]


def _blank_rows(rows: Rows, generator: random.Random) -> None:
    rows.insert(generator.randrange(1, len(rows)), [""] * 4)
    rows.append([])


def _index(rows: Rows, generator: random.Random) -> None:
    for place, row in enumerate(rows):
        row.insert(0, "" if place == 0 else str(place - 1))


def _row_numbers(rows: Rows, generator: random.Random) -> None:
    for place, row in enumerate(rows):
        row.insert(0, "row" if place == 0 else str(place - 1))


def _suffixes(rows: Rows, generator: random.Random) -> None:
    prefix = generator.choice(("", "train/", "./"))
    for row in rows[1:]:
        row[0] = f"{prefix}{row[0]}.png"


def _blanks(rows: Rows, generator: random.Random) -> None:
    for row in rows[1:]:
        row[0], row[1] = f" {row[0]} ", f" {row[1]}\t"


def _words(rows: Rows, generator: random.Random) -> None:
    no, yes = generator.choice((("False", "True"), ("no", "yes"), ("0.0", "1.0"), ("negative", "positive")))
    for row in rows[1:]:
        row[1] = yes if row[1] == "1" else no


def _same_header(rows: Rows, generator: random.Random) -> None:
    rows[0][2] = rows[0][1]


def _no_header(rows: Rows, generator: random.Random) -> None:
    del rows[0]


def _long_quote(rows: Rows, generator: random.Random) -> None:
    _some(rows, generator)[3] = 'says "p1\nand more'


def _none(rows: Rows, generator: random.Random) -> None:
    return


#: What is done to the rows, in words.
WAYS: dict[str, Callable[[Rows, random.Random], None]] = {
    "sound": _none,
    "an index column": _index,
    "row numbers that are no ids": _row_numbers,
    "ids with endings and folders": _suffixes,
    "blanks around cells": _blanks,
    "0 and 1 in words": _words,
    "blank rows": _blank_rows,
    "a quoted cell over two lines": _long_quote,
    "3,000 columns": _many_columns,
    "a huge cell": _huge,
    "a row twice": _duplicate,
    "a row that contradicts another": _contradict,
    "a row with a cell too many or too few": _ragged,
    "an image without a row": _missing_row,
    "odd numbers": _cell("2", "-1", "1e0", "0x1", "1.0000001", "\u0661", "inf", "nan", "1_0", "1 ", "--1"),
    "blank and missing labels": _cell("", "NA", "?", "None", "null", "-"),
    "formula cells": _cell("=1+1", "=cmd|' /C calc'!A0", "@SUM(1)", "+1", "-1"),
    "an id that leads outside": _ids("../img00", "/etc/passwd", "C:\\x", "..", "a/../../b", "img00/..", "%2e%2e/x"),
    "an odd id": _ids("", "img\u00e9", "=1+1", "img 00", "\u202eimg", "IMG00", "img00.jpg", "a\rb", "img00\u200b"),
    "an id that no image has": _ids("img99", "IMG99", "99"),
    "control characters": _cell("\x00", "\x1b[31m1", "1\x07", "\x0c0"),
    "two columns of one name": _same_header,
    "no header": _no_header,
}


#: What has to be read: only how it is written differs.
BENIGN = tuple(WAYS)[: list(WAYS).index("3,000 columns") + 1]


def play(stage: Stage, case: Case, folder: Path) -> Verdict:
    """Describe a data set, and compare the labels that are read with those that the table holds."""
    generator = case.random()
    way = list(WAYS)[case.number % len(WAYS)]
    rows = sound_rows(generator)
    WAYS[way](rows, generator)
    told, writing = _writings(generator)
    content = writing.write(rows)
    damage = choose(generator) if case.number % 3 == 2 else "whole"
    content = DAMAGES[damage](content, generator)
    story = f"{way}, {told}" + (f", {damage}" if damage != "whole" else "")
    data = folder / "data"
    (data / "train").mkdir(parents=True)
    for name in IDS:
        (data / "train" / f"{name}.png").touch()
    table = data / ("train.csv.gz" if writing.compressed else "train.csv")
    table.write_bytes(content)
    options = ("--labels", ",".join(LABELS)) if generator.random() < 0.3 else ()
    around = Surroundings(folder / "tmp", real=case.number % 50 == 49)
    ended = run(["features", "describe", str(data), "--out", str(folder / "page"), *options], around)
    verdict = ended.failure() or judge(data, options, writing.read(content), ended.said)
    if verdict.outcome == REJECTED and way in BENIGN and damage == "whole":
        verdict = Verdict(LOST, f"a sound table was refused: {verdict.story}")
    return verdict._replace(story=f"{story}: {verdict.story}")


def judge(
    data: Path, options: tuple[str, ...], expected: dict[str, list[list[int | None]]] | None, said: str
) -> Verdict:
    """Compare the labels that every command reads with those of an independent reading.

    Args:
        data: the data set.
        options: of the command.
        expected: what the table says, by id; None where it is no table.
        said: what the command said.
    """
    from features.common.errors import InputError
    from features.dataset.dataset import read_dataset
    from features.options import DatasetOptions

    logging.disable(logging.WARNING)  # what it warns of, the command has said
    try:
        dataset = read_dataset(data, DatasetOptions(labels=options[1] if options else None))
    except InputError as error:
        return Verdict(REJECTED, str(error).partition("\n")[0][:200]) if str(error) else Verdict(SILENCE, "no reason")
    train = dataset.splits["train"]
    if train.labels is None:
        return Verdict(REJECTED, "no labels, which is said") if "labels" in said else Verdict(SILENCE, "no labels")
    for name in {*LABELS} & {*dataset.label_names}:
        column, place = dataset.label_names.index(name), LABELS.index(name)
        for image_id, value in zip(train.image_ids, train.labels[:, column].tolist(), strict=True):
            of_table = {row[place] for row in (expected or {}).get(image_id, [])}
            if value in (0, 1) and value not in of_table:
                return Verdict(
                    WRONG, f"{name} of {image_id} is read as {value}, but the table says {of_table or 'nothing'}"
                )
            if value not in (0, 1) and of_table in ({0}, {1}) and "known" not in said:
                return Verdict(LOST, f"{name} of {image_id} is not read, but the table says {of_table}")
    unnamed = [name for name in IDS if name not in train.image_ids and (expected or {}).get(name)]
    if unnamed and not any(word in said for word in ("without", "skipped", "left out", *unnamed)):
        return Verdict(LOST, f"{unnamed[0]} has a row, and is not among the images to learn from")
    return Verdict(CORRECT, f"labels {', '.join(dataset.label_names)} as the table has them")


TABLES = Kind(
    "tables",
    500,
    "`features describe` of tables in four encodings, with four separators, compressed or not: duplicate and "
    "ragged rows, huge cells, odd numbers, formulas, control characters, ids that lead outside, damaged bytes",
    "the labels of each id are those that Python's csv reads, or the table is refused; sound ones are read",
    one_by_one(play),
    batch=10,
    modules=READING,
)
