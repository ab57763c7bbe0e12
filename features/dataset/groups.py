"""Find the groups of images that no fold may cut, such as patients: in a column, in a file, or in the ids."""

import csv
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from features.common.cells import read_cell, write_cell
from features.common.errors import InputError
from features.common.files import replacing
from features.common.text import count_things
from features.dataset.faults import Fault, Faults, cell_fault, listed, shown
from features.dataset.folder import to_image_id
from features.dataset.formats import Column, Listing, is_unknown
from features.dataset.ids import ID, keep_first
from features.dataset.layout import ROLES, ImageFile
from features.dataset.table import Table, is_unnamed, named, read_table, words_of
from features.options import DatasetOptions

#: Names of columns of groups, without case, blanks, `_` and `-`: a name in front goes before those behind it.
GROUP_NAMES = (
    *("patient", "patientid", "patientnumber", "patientno", "subject", "subjectid", "participant", "participantid"),
    *("patienten", "patientenid", "patientennr", "patientennummer", "patientnr", "patnr", "patid", "mrn", "proband"),
    *("person", "personid", "case", "caseid", "fallid", "fallnr", "fallnummer"),
    *("study", "studyid", "studyuid", "studyinstanceuid", "exam", "examid"),
    *("series", "seriesuid", "seriesinstanceuid", "volume", "volumeid", "scan", "scanid"),
)
# Beginnings of those that name whom images are of, whatever their cells.
_OWNERS = ("pat", "subject", "participant", "proband", "mrn")
#: The column of a file of groups.
_GROUP = "group"
# A part of a path that names a patient: `patient00001`, `Subject_7`, `sub-03`; or its first part, of a study or a case.
_NAMED_PART = re.compile(
    r"(?:(?:^|/)(?:patient|subject|participant|sub|pat)|^(?:case|study))[-_ ]?\d+(?=[/_.-]|$)", re.IGNORECASE
)
# The end of an id that counts: `00002275_018`.
_COUNTED = re.compile(r"^(.*[^\W_].*)[_-]\d+$")
# Words of columns whose numbers name something.
_NAMING = frozenset(["id", "no", "nr", "num", "number", "uid", "code", "key", "name"])
#: Beginnings of ids that are taken for patients.
_FEWEST_PREFIXES = 10
_NUMBER = re.compile(r"\d+(?:\.0*)?")


@dataclass(frozen=True)
class FoundGroups:
    """The groups of all M images.

    Attributes:
        values: str (M,), "" where none is known.
        lone: bool (M,): images without a group that no table could give one: each is a group of its own.
        columns: the columns that hold groups: no labels, also where a file gives the groups.
        said: what was understood, in words.
        guessed: whether they were recognised in the ids.
    """

    values: np.ndarray
    lone: np.ndarray
    columns: set[str]
    said: str
    guessed: bool = False


def find_groups(
    listings: Sequence[Listing],
    images: Sequence[ImageFile],
    roles: Sequence[str],
    others: Collection[str],
    options: DatasetOptions,
    faults: Faults,
) -> FoundGroups:
    """Find the groups of images: in a file, in the ids as a person says, in a column, or in ids that name patients.

    Args:
        listings: the tables; the first must have a column that was asked for. Rows index the images.
        images: M of them.
        roles: what each is for; "" if it is left out.
        others: columns that are known to be something else.
        options: what a person says.
        faults: gets groups that are missing, and the question whether a column is one of groups.

    Raises:
        InputError: two options name the groups, or one names what is not there.
    """
    given = {
        "--groups": options.groups,
        "--group-column": options.group_column,
        "--group-from": options.group_from,
    }
    named_options = [f"{option} {value}" for option, value in given.items() if value is not None]
    if len(named_options) > 1:
        raise InputError(f"{' and '.join(named_options)}: give one of them.")
    tables = [listing for listing in listings if listing.table is not None]
    found: list[tuple[str, Listing]] = []
    for listing in tables:
        name = find_group_column(listing, options.group_column, required=not found)
        if name is not None and name not in others:
            found.append((name, listing))
    kinds = {_kind(name): f"{shown(name)} in {listing.path.name}" for name, listing in found}
    if len(kinds) > 1 and options.groups is None and options.group_from is None:
        raise InputError(
            f"{found[0][1].path.parent}: the groups may be {' and '.join(kinds.values())}, which are not the same. "
            "Give both columns one name, or the groups of all images by --groups FILE."
        )
    columns = {name for name, _ in found}
    ids = [image.within for image in images]
    learnt = [index for index, role in enumerate(roles) if role == ROLES[0]] or list(range(len(images)))
    values, said = np.array([""] * len(images), dtype=np.str_), "none"
    lone, guessed = np.zeros(len(images), bool), False
    if options.groups is not None:
        values = _join_file(options.groups, images, roles, faults)
        said = str(options.groups)
    elif options.group_from is not None:
        used = [index for index, role in enumerate(roles) if role]
        values = values.astype(object)
        values[used] = groups_from_ids([ids[index] for index in used], options.group_from)
        values = values.astype(np.str_)
        said = f"from the ids by {options.group_from}"
    elif found:
        cells, respelt = align_groups(
            [read_group_column(listing.table, name, faults) for name, listing in found if listing.table]
        )
        if respelt:
            faults.notes.append(
                f"{found[0][1].path}: {count_things(respelt, 'group')} of {shown(found[0][0])} differ from others in "
                "case, leading zeros or .0 alone: each is one with them"
            )
        by_image = dict[int, str]()
        for (_, listing), of_rows in zip(found, cells, strict=True):
            by_image |= dict(zip(listing.images.tolist(), of_rows.tolist(), strict=True))
        values = np.array([by_image.get(index, "") for index in range(len(images))], np.str_)
        said = " and ".join(dict.fromkeys(shown(name) for name, _ in found))
        lone = np.array([index not in by_image for index in range(len(images))], bool)
    elif (patients := recognise_patients([ids[index] for index in learnt])) is not None:
        matches = [_NAMED_PART.search(one) for one in ids]
        values = np.array([match.string[: match.end()] if match else "" for match in matches], np.str_)
        lone, guessed = values == "", True
        said = f"from the ids, such as {shown(str(patients[0]))} (others: --group-from)"
    count, known = len({*values.tolist()} - {""}), int((values != "").sum())
    said += f" ({count_things(count, 'group')} of {count_things(known, 'image')})" if count else ""
    return FoundGroups(values, lone, columns, said, guessed)


def _join_file(path: Path, images: Sequence[ImageFile], roles: Sequence[str], faults: Faults) -> np.ndarray:
    """Give every image the group of a file, "" where it has none: str (M,). It may name no image of test."""
    groups = read_groups_file(path, faults)
    unknown = sorted(groups.keys() - {image.image_id for image in images})
    if unknown:
        faults.warnings.append(
            f"{path}: {len(unknown)} of {len(groups)} rows name no image of the data set (first: {shown(unknown[0])}); "
            "they are ignored."
        )
    for name in dict.fromkeys(filter(None, roles)):
        own = [image.image_id for image, role in zip(images, roles, strict=True) if role == name]
        missing = [image_id for image_id in own if image_id not in groups]
        if missing and (len(missing) < len(own) or name == "train"):
            what = f"no group for {len(missing)} of {len(own)} {name} images (first: {shown(missing[0])})"
            remedy = "Add their rows; an image that belongs to no group gets one of its own."
            faults.add(Fault("group", path, what, remedy))
    return np.array([groups.get(image.image_id, "") for image in images], dtype=np.str_)


def find_group_column(listing: Listing, wanted: str | None, *, required: bool) -> str | None:
    """Find the name of the group column; None if there is none, and none is required.

    Raises:
        InputError: the column asked for is missing.
    """
    if wanted is not None:
        if wanted in listing.header:
            return wanted
        alike = [name for name in listing.header if _plain(name) == _plain(wanted)]
        if alike or not required:
            return alike[0] if alike else None
        raise InputError(
            f"{listing.path} has no column {shown(wanted)}. Its columns: {listed(named(listing.header))}. "
            "Name one of them with --group-column."
        )
    known = [name for name in listing.header if _plain(name) in GROUP_NAMES and name != listing.id_column]
    # Of 0 and 1, or yes and no, "case" and "exam" are labels.
    known = [name for name in known if _plain(name).startswith(_OWNERS) or not _is_label(listing.columns.get(name))]
    return min(known, key=lambda name: GROUP_NAMES.index(_plain(name)), default=None)


def _plain(name: str) -> str:
    """A name without case, blanks, `_` and `-`."""
    return re.sub(r"[\W_]", "", name.casefold())


def _kind(name: str) -> str:
    """What a column of groups names: `Patient ID` and `patient_number` both name patients."""
    return re.sub(r"(id|uid|instanceuid|number|nummer|no|nr|en|enid|ennr|ennummer)$", "", _plain(name)) or name


def _is_label(column: Column | None) -> bool:
    """Whether a column holds both 0 and 1, or such words, and nothing else."""
    return column is not None and not column.refused and {0, 1} <= {*column.values.tolist()}


def read_group_column(table: Table, name: str, faults: Faults) -> np.ndarray:
    """Read the groups of the table's N rows: str (N,), "" where the cell is blank."""
    cells = ["" if is_unknown(cell) else cell for cell in table.cells(name)]
    remedy = "Every row needs a group, such as its patient: write it, or take another column with --group-column."
    for line, cell, raw in zip(table.lines, cells, table.cells(name), strict=True):
        if not cell:
            faults.add(cell_fault("group", table.path, line, name, raw, remedy))
    return np.array(cells, dtype=np.str_)


def align_groups(groups: Sequence[np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Write each group in one way, so that `007` and `7.0` are one in all splits, and `P3` and `p3`.

    Two groups taken for one cost little; one taken for two is a patient in two folds.

    Returns:
        str (N,) by split, as the first that is met writes it, numbers plainly; and how many spellings were joined.
    """
    usual: dict[str, str] = {}
    plain: dict[str, str] = {"": ""}
    for cell in (cell for of_split in groups for cell in of_split.tolist()):
        if cell not in plain:
            number = (cell.split(".")[0].lstrip("0") or "0") if _NUMBER.fullmatch(cell) else cell
            plain[cell] = usual.setdefault(number.casefold(), number)
    joined = len(plain) - 1 - len(usual)
    return [np.array([plain[cell] for cell in of_split.tolist()], np.str_) for of_split in groups], joined


def groups_from_ids(image_ids: Sequence[str], pattern: str) -> np.ndarray:
    """Take the groups of N images from their ids: str (N,).

    Args:
        image_ids: such as `00002275_018`.
        pattern: a regular expression; the group is what its first pair of brackets matches, or the whole match.

    Raises:
        InputError: it is no regular expression, or does not match every id.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-from {pattern!r} is no regular expression: {error}.") from None
    found = [compiled.search(image_id) for image_id in image_ids]
    groups = [match[1 if compiled.groups else 0] if match else None for match in found]
    missing = [image_id for image_id, group in zip(image_ids, groups, strict=True) if not group]
    if missing:
        raise InputError(
            f"--group-from {pattern!r} matches nothing in {len(missing):,} of {len(image_ids):,} ids (first: "
            f"{shown(missing[0])}). Write one that matches all: such as '^(.+)_' for {shown('00002275_018')}."
        )
    return np.array(groups, np.str_)


def names_patient(name: str) -> bool:
    """Whether the name of a folder is that of a patient: `patient00001`."""
    return _NAMED_PART.fullmatch(name) is not None


def recognise_patients(image_ids: Sequence[str]) -> np.ndarray | None:
    """Take groups from ids that name the patient in so many words, `patient00001/study1/view1`: str (N,), or None."""
    found = [_NAMED_PART.search(image_id) for image_id in image_ids]
    groups = [match.string[: match.end()] for match in found if match]
    if len(groups) < len(image_ids) or not 1 < len({*groups}) < len(groups):
        return None
    return np.array(groups, np.str_)


def suggest_groups(listing: Listing, image_ids: Sequence[str], not_groups: Collection[str]) -> str:
    """Ask, in a sentence, whether a column or a part of the ids names groups, as its values repeat; "" if none does."""
    for name in listing.columns if listing.table is not None else ():
        cells = listing.table.columns[listing.table.header.index(name)] if listing.table else []
        if name in not_groups or is_unnamed(name) or not _repeats(cells):
            continue
        words_or_runs = not all(_NUMBER.fullmatch(cell) for cell in cells if cell) or _stand_in_runs(cells)
        if _NAMING & words_of(name) or words_or_runs:
            return (
                f"{listing.path}: the column {shown(name)} repeats {len({*cells}):,} values over {len(cells):,} rows. "
                "If they are patients, or others whose images belong together, say so: --group-column "
                f"{shlex.quote(name)}. Without groups, folds may cut them, and scores are too good."
            )
    naming = [match for image_id in image_ids if (match := _NAMED_PART.search(image_id))]
    if len(image_ids) > len(naming) >= len(image_ids) / 2 and len({match[0] for match in naming}) < len(naming):
        lone = next(image_id for image_id in image_ids if not _NAMED_PART.search(image_id))
        return (
            f"{len(naming):,} of {len(image_ids):,} ids name a patient, such as {shown(naming[0].string)}; the others "
            f"do not, such as {shown(lone)}. Say which images belong together: --groups FILE, or --group-from REGEX. "
            "Without groups, folds may cut patients, and scores are too good."
        )
    folders = [image_id.rpartition("/")[0] for image_id in image_ids]
    are_classes = "" in not_groups and all("/" not in folder for folder in folders)
    if all(folders) and not are_classes and _repeats(folders) and len({*folders}) >= _FEWEST_PREFIXES:
        return (
            f"the images lie in {len({*folders}):,} folders, such as {shown(folders[0])}. If these are patients, or "
            "others whose images belong together, say so: --group-from '^(.+)/'. Without groups, folds may cut them, "
            "and scores are too good."
        )
    prefixes = [match[1] if (match := _COUNTED.match(image_id)) else "" for image_id in image_ids]
    # Fewer are classes rather than patients: "cat_001".
    if all(prefixes) and _repeats(prefixes) and len({*prefixes}) >= _FEWEST_PREFIXES:
        return (
            f"ids such as {shown(image_ids[0])} suggest that {shown(prefixes[0])} is a patient with several images. If "
            "so, say it: --group-from '([^/]+)[_-]\\d+$'. Without groups, folds may cut them, and scores are too good."
        )
    return ""


def _repeats(cells: Sequence[str]) -> bool:
    """Whether values repeat as those of groups do: several, most of them more than once, none in most rows."""
    counts = Counter(cells)
    several = sum(count > 1 for count in counts.values())
    return len(counts) >= 5 and 2 * several >= len(counts) and 2 * max(counts.values()) <= len(cells)


def _stand_in_runs(cells: Sequence[str]) -> bool:
    """Whether equal values stand together, as those of a patient do, and ages do not."""
    runs = 1 + sum(before != cell for before, cell in pairwise(cells))
    return runs == len({*cells})


def read_groups_file(path: Path, faults: Faults) -> dict[str, str]:
    """Read the group of every image that a file names, neither of them blank.

    Args:
        path: CSV file with the columns `ID` and `group`; other columns are ignored.
        faults: gets ids that are blank, lead outside the data set or are duplicated, and blank groups.

    Raises:
        InputError: it is not a readable table, or a column is missing.
    """
    table = read_table(path)
    for name in (ID, _GROUP):
        if name not in table.header:
            raise InputError(
                f"{path} has no column {name}. Its columns: {listed(named(table.header))}. A file of groups has the "
                f"columns {ID} and {_GROUP}; python -m features audit writes one."
            )
    groups: dict[str, str] = {}
    cells = table.cells(_GROUP)
    for row in keep_first(table, table.find(ID), [None] * len(table.lines), faults):
        image_id = to_image_id(table.cells(ID)[row])
        if cells[row]:
            groups[read_cell(image_id)] = read_cell(cells[row])
        else:
            remedy = "Every image needs a group: write it; one of its own will do."
            faults.add(cell_fault("group", path, table.lines[row], _GROUP, "", remedy))
    return groups


def write_groups_file(path: Path, groups: Mapping[str, str], safe: bool) -> None:
    """Write the group of every image, for `read_groups_file`; `safe` from spreadsheets, if asked for.

    Raises:
        InputError: the file cannot be written.
    """
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((ID, _GROUP))
        writer.writerows([write_cell(cell, safe) for cell in row] for row in groups.items())
