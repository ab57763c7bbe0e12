"""Decide what the labels of a data set are, and read them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress

import numpy as np

from features.common.arrays import UNKNOWN, count_values
from features.common.errors import InputError
from features.common.text import first_few
from features.dataset.classes import ClassColumn, read_classes, read_folders
from features.dataset.faults import Fault, Faults, cell_fault, listed, shown
from features.dataset.formats import Listing
from features.dataset.groups import names_patient
from features.dataset.table import words_of

_SHOWN_COLUMNS = 12
#: What may be done with labels that are not known.
UNKNOWN_RULES = ("error", "mask", "negative")
#: Columns of 0 and 1 with these names describe a patient or an image: they are labels, but that is said aloud.
_METADATA = frozenset(
    (
        "sex",
        "gender",
        "male",
        "female",
        "age",
        "smoker",
        "view",
        "position",
        "laterality",
        "side",
        "fold",
        "follow",
        "split",
    )
) | frozenset(("set", "subset", "partition", "phase", "test", "train", "valid"))


#: Different numbers that are too many for classes.
_MANY = 100
_MEASUREMENT = re.compile(r"[-+]?\d*[.]?\d*(e[-+]?\d+)?", re.IGNORECASE)
# Words of columns that hold numbers of folds.
_FOLDS = frozenset(["fold", "folds", "kfold"])


@dataclass(frozen=True)
class LabelOptions:
    """What a person says of labels.

    Attributes:
        wanted: names of labels, or of one column of classes; None takes what is likely.
        separator: what stands between the classes of a cell; None recognises it.
        unknown: one of `UNKNOWN_RULES`; None refuses labels that are not known, unless a table says by -1 that some are
            uncertain.
    """

    wanted: Sequence[str] | None = None
    separator: str | None = None
    unknown: str | None = None


@dataclass(frozen=True)
class FoundLabels:
    """The labels of a data set.

    Attributes:
        names: L names.
        values: by table, uint8 (N, L), 0, 1 or UNKNOWN; None where the table gives no labels.
        said: what was understood, in words.
        columns: the columns that the labels are from; "" for the folders of the images.
    """

    names: tuple[str, ...]
    values: dict[str, np.ndarray | None]
    said: str
    columns: frozenset[str]


def read_labels(
    listings: Mapping[str, Listing],
    folders: Mapping[str, Sequence[str]],
    learnt: Mapping[str, np.ndarray],
    options: LabelOptions,
    faults: Faults,
) -> FoundLabels:
    """Read the labels of a data set.

    Args:
        listings: by name the tables, that of train first; their columns without the groups.
        folders: by name of table, the folder below its split that each row's image is in; "" where there is none.
        learnt: by name of table, bool (N,): the rows of images to learn from, where there are any. Together they say
            which classes there are, and what can be told apart.
        options: what a person says.
        faults: gets cells that are not labels, a table of train without labels, one of test with others, and warnings.

    Returns:
        The names, the values by table, and what was understood.

    Raises:
        InputError: a name asked for is missing, or the labels may be read in two ways.
    """
    source, first = None, ""
    labels: dict[str, np.ndarray | None] = {}
    found: dict[str, Listing] = {}
    pool = _Pool(listings, folders, learnt, options.separator)
    for name, listing in listings.items():
        if source is None:
            source = _choose(listing, name, pool, options, faults)
            first = name if source is not None else ""
            if source is None and name == "train" and listing.header:
                what = f"no label column: none holds only 0 and 1, or few words. Columns: {_describe(listing)}"
                remedy = "Write labels as 0 and 1 or as words, or name the label columns with --labels."
                faults.add(Fault("label", listing.path, what, remedy))
    for name, listing in listings.items():
        found[name] = _with_columns(listing, name, pool, source, faults)
        if source is not None and source.folders and not listing.header:
            _refuse_strays(listing, folders[name], faults)
    names = () if source is None else source.names
    for name, listing in found.items():
        if name == first:
            labels[name] = _read(listing, names, faults, found=options.wanted is None)
        elif first in labels and listing.columns.keys() & {*names}:
            of_train = found[first], labels[first]
            labels[name] = _read_shared(listing, options, *of_train, names, faults, may_be_form=name == "test")
        else:
            labels[name] = None
    _settle_unknown(found, names, labels, learnt, options, faults)
    if options.wanted is None and first:
        names = _leave_out_constant(names, labels, learnt, faults)
    for name, listing in found.items():
        read = () if labels[name] is None else (*names, source.column if source else "")
        ignored = [*(column for column in listings[name].columns if column not in read), *listing.unnamed]
        if options.wanted is None and ignored:
            faults.notes.append(f"{listing.path}: not labels: {listed(ignored)}")
    said = f"{len(names)}{source.how}: {listed(names)}" if source else "none"
    columns = frozenset(
        () if source is None else (*source.names, *([source.column] if source.column or source.folders else []))
    )
    return FoundLabels(names, labels, said, columns)


@dataclass(frozen=True)
class _Source:
    """Where labels are: in a column each, in one column of classes, or in the folders of the images.

    Attributes:
        names: of the labels.
        how: where they are, in words.
        column: the column of classes; "" if there is none such.
        folders: whether the folders of the images are the classes.
        others: whether a cell may hold other classes than the labels.
    """

    names: tuple[str, ...]
    how: str = ""
    column: str = ""
    folders: bool = False
    others: bool = False


@dataclass(frozen=True)
class _Pool:
    """Reads columns of classes in the light of all tables that are learnt from; attributes as of `read_labels`."""

    listings: Mapping[str, Listing]
    folders: Mapping[str, Sequence[str]]
    learnt: Mapping[str, np.ndarray]
    separator: str | None

    def read(self, table: str, column: str, *, jointly: bool = False) -> ClassColumn | None:
        """Read a column of a table, "" for the folders, or `jointly` all that is learnt from; None if it has none."""
        own = self._cells(table, column)
        if own is None:
            return None
        cells = [(self._cells(name, column), rows) for name, rows in self.learnt.items()]
        learnt = [one for found, rows in cells if found is not None for one in compress(found, rows)] or own
        read = read_folders if not column else partial(read_classes, column, separator=self.separator)
        return read(learnt if jointly else own, learnt=learnt)

    def _cells(self, table: str, column: str) -> Sequence[str] | None:
        """The cells of a column of a table; None if it has none."""
        listing, folders = self.listings[table], self.folders[table]
        if not column:
            return None if listing.header else folders
        if listing.table is None or column not in listing.columns or listing.table.header.count(column) != 1:
            return None
        return listing.table.cells(column)


def _choose(listing: Listing, table: str, pool: _Pool, options: LabelOptions, faults: Faults) -> _Source | None:
    """Choose the labels of a table, and say in words how they are written; None if there are none."""
    if options.wanted is not None:
        return _choose_wanted(listing, table, pool, options.wanted, faults)
    likely = [name for name, column in listing.columns.items() if column.likely and not _counts_folds(name)]
    if listing.are_labels:
        return _Source(tuple(likely), " in the long format") if likely else None
    classes = [column for column in _read_all(listing, table, pool) if column.is_likely]
    classes = [column for column in classes if not _is_metadata(column.name) and not _counts_folds(column.name)]
    # Grades of 0 to 4 are classes, however many of them are 0 or 1.
    grades = {column.name for column in classes if column.counts_grades and listing.columns[column.name].refused}
    likely = [name for name in likely if name not in grades]
    classes = [column for column in classes if column.name not in likely]
    classes = [column for column in classes if column.is_named] or classes
    # What competes with a column of classes: columns that hold both values and nothing else.
    clean = [name for name in likely if not listing.columns[name].refused and not _is_metadata(name)]
    varied = [name for name in clean if len(np.unique(listing.columns[name].values)) > 1]
    if len(classes) > 1 and not likely:
        raise InputError(
            f"{listing.path}: each of the columns {listed([column.name for column in classes])} may hold the classes. "
            "Name the right one with --labels."
        )
    if len(classes) == 1 and classes[0].is_named and varied:
        raise InputError(
            f"{listing.path}: the labels may be the columns of 0 and 1 ({listed(varied)}) or the classes in "
            f"{shown(classes[0].name)}. Name the right ones with --labels."
        )
    if len(classes) == 1 and (classes[0].is_named or not likely):
        return _of_classes(classes[0], listing, faults)
    if likely:
        strange = [name for name in likely if _is_metadata(name)]
        if strange:
            faults.warnings.append(
                f"{listing.path}: {listed(strange)} holds 0 and 1, so it is taken for a label. Where it is not, name "
                "the labels with --labels."
            )
        spelt = {listing.columns[name].spelling for name in likely} - {""}
        return _Source(tuple(likely), f" of {listed(sorted(spelt))}" if spelt else "")
    of_folders = pool.read(table, "", jointly=True)
    if of_folders is not None and of_folders.is_likely and not all(map(names_patient, of_folders.counts)):
        return _Source(tuple(of_folders.counts), " classes from the folders of the images", folders=True)
    return None


def _counts_folds(name: str) -> bool:
    """Whether a column's name says that it holds numbers of folds."""
    return bool(_FOLDS & words_of(name))


def _is_metadata(name: str) -> bool:
    """Whether a column's name says that it describes a patient or an image."""
    return bool(_METADATA & words_of(name))


def _read_all(listing: Listing, table: str, pool: _Pool) -> list[ClassColumn]:
    """Read all columns of a table as classes."""
    texts = dict(zip(listing.table.header, listing.table.columns, strict=True)) if listing.table is not None else {}
    names = [name for name in listing.columns if name in texts and not _are_numbers(texts[name])]
    columns = (pool.read(table, name, jointly=True) for name in names)
    return [column for column in columns if column is not None]


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether cells are measurements rather than classes: many different numbers; to read them as classes is slow."""
    different = {*cells}
    return len(different) > _MANY and all(map(_MEASUREMENT.fullmatch, different))


def _of_classes(column: ClassColumn, listing: Listing, faults: Faults) -> _Source:
    """Take the classes of a column for labels; one that means none is left out where a cell may hold several."""
    names = tuple(column.counts)
    if not column.holds_several:
        if column.none:
            faults.notes.append(
                f"{listing.path}: {' and '.join(map(shown, column.none))} "
                f"{'are classes' if len(column.none) > 1 else 'is a class'} like the others; to have it mean none of "
                "them, name the others in --labels"
            )
        return _Source(names, f" classes from {shown(column.name)}", column.name)
    split = "lists" if column.separator == "[]" else f"split at {column.separator}"
    how = f" from {shown(column.name)}, {split}"
    if column.none:
        names = tuple(name for name in names if name not in column.none)
        how += f"; {' and '.join(map(shown, column.none))} {'mean' if len(column.none) > 1 else 'means'} none of them"
    return _Source(names, how, column.name)


def _choose_wanted(listing: Listing, table: str, pool: _Pool, wanted: Sequence[str], faults: Faults) -> _Source:
    """Find the labels asked for: columns, one column of classes, or classes of a column or of folders."""
    absent = [name for name in wanted if name not in listing.columns]
    if not absent:
        column = listing.columns[wanted[0]]
        filled = len(column.values) - len(column.unknown)
        classes = pool.read(table, wanted[0], jointly=True) if len(wanted) == 1 and column.refused else None
        if classes is not None:
            words = 2 * column.refused > filled and not classes.is_numeric
            if words or classes.counts_grades:
                return _of_classes(classes, listing, faults)
        return _Source(tuple(wanted))
    of_folders = pool.read(table, "", jointly=True)
    columns = [*_read_all(listing, table, pool), *([] if of_folders is None else [of_folders])]
    for classes in columns:
        name = classes.name
        if {*wanted} <= classes.counts.keys():
            where = f"from {shown(name)}" if name else "from the folders of the images"
            how = f" of {len(classes.counts)} classes {where}"
            return _Source(tuple(wanted), how, name, folders=not name, others=True)
    near = next((classes for classes in columns if {*wanted} & classes.counts.keys()), None)
    if near is not None:
        absent = [name for name in wanted if name not in near.counts]
        where, known = shown(near.name) if near.name else "the folders of the images", tuple(near.counts)
        raise InputError(
            f"--labels names {listed(absent)}, which is no class of {where} in {listing.path}. Its classes: "
            f"{listed(known)}. Name some of these with --labels."
        )
    taken = [name for name in absent if name in listing.header]
    if taken:
        raise InputError(
            f"--labels names {listed(taken)}, a column of {listing.path} that is taken for ids, groups or splits. Name "
            "other columns for these (--id-column, --group-column, --split-column), or other labels."
        )
    raise InputError(
        f"--labels names {listed(absent)}, which {listing.path} does not have, as a column or as a class. Its columns "
        f"beside ids and groups: {listed(tuple(listing.columns))}. Name some of these with --labels."
    )


def _with_columns(listing: Listing, table: str, pool: _Pool, source: _Source | None, faults: Faults) -> Listing:
    """Give a table a column for each class, where its labels are classes."""
    if source is None or not (source.column or source.folders):
        return listing
    classes = pool.read(table, source.column)
    if classes is None or (source.folders and "" in pool.folders[table]):
        return replace(listing, columns={}, are_labels=True)
    for written, usual in classes.respelt.items():
        faults.notes.append(f"{listing.path}: the class {shown(written)} is read as {shown(usual)}")
    columns = classes.columns(source.names, listing.lines or [0] * len(classes.parts), others=source.others)
    if source.folders and not source.others:  # one fault for each folder, not for each image
        strange = [name for name in classes.counts if name not in source.names]
        remedy = f"The classes are {listed(source.names)}. Rename the folder, or name the classes with --labels."
        what = "its images are of no class that is learnt"
        first = source.names[0]
        of_folders = tuple(Fault("label", listing.path / name, what, remedy) for name in strange)
        columns[first] = replace(columns[first], refused=0, first_refused=(), faults=of_folders)
    return replace(listing, columns=columns, are_labels=True)


def _refuse_strays(listing: Listing, folders: Sequence[str], faults: Faults) -> None:
    """Refuse images beside the folders of the classes, where others are in one."""
    strays = [image_id for image_id, folder in zip(listing.image_ids, folders, strict=True) if not folder]
    if 0 < len(strays) < len(folders):
        what = f"{len(strays)} of {len(folders)} images lie in no folder of a class (first: {shown(strays[0])})"
        faults.add(Fault("label", listing.path, what, "Move them into one, or out of the data set."))


def _describe(listing: Listing) -> str:
    """Name the columns, each with a cell that is neither 0 nor 1."""
    parts = [
        listed([name]) + "".join(f" (line {line}: {shown(cell)})" for line, cell in column.first_refused[:1])
        for name, column in listing.columns.items()
    ]
    return first_few(parts, _SHOWN_COLUMNS, "; ") or "none beside the ids and groups"


def _read_shared(
    test: Listing,
    options: LabelOptions,
    train: Listing,
    of_train: np.ndarray | None,
    names: tuple[str, ...],
    faults: Faults,
    *,
    may_be_form: bool,
) -> np.ndarray | None:
    """Read the labels of another table that it has, too; None if it gives only ids, or is a form to fill in."""
    shared = [name for name in test.columns if name in names]
    values = [test.columns[name].values for name in shared]
    strange = test.are_labels and test.table is not None and any(test.columns[name].refused for name in shared)
    if all((of_label == UNKNOWN).all() for of_label in values) and not strange:
        if others := [fault.path.name for name in shared for fault in test.columns[name].faults if not test.header]:
            faults.warnings.append(
                f"{test.path}: its folders ({listed(others)}) are none of the classes ({listed(names)}): its images "
                "are predicted, not scored."
            )
        return None
    if may_be_form and all((of_label == 0).all() for of_label in values) and of_train is not None and 1 in of_train:
        faults.warnings.append(
            f"{test.path}: every label is 0, as in a sample submission: its images are predicted, not scored. Where "
            "they are known to be negative, add one that is not."
        )
        return None
    if options.wanted is not None:  # labels asked for by name are joined by name
        present = tuple(name for name in names if name in shared)
    else:
        # A column that train has, too, is not a label if it is not one there ("fold": 0 to 4 there, only 0 here).
        new = {name for name, column in test.columns.items() if UNKNOWN not in column.values} - set(train.columns)
        present = tuple(name for name in test.columns if name in shared or name in new)
    if {*present} != {*names}:
        what = f"received the labels {listed(present)}, but {train.path} has {listed(names)}"
        remedy = (
            "Give both the same label columns, remove all of them from the test file, or name the ones to use with "
            "--labels."
        )
        faults.add(Fault("label", test.path, what, remedy))
    return _read(test, names, faults, found=False)


def _read(listing: Listing, names: Sequence[str], faults: Faults, *, found: bool) -> np.ndarray:
    """Read labels, unknown where the table has no such column: uint8 (N, L), 0, 1, or UNKNOWN."""
    values = np.full((len(listing.images), len(names)), UNKNOWN, np.uint8)
    repeats: list[int] = []
    for place, name in enumerate(names):
        if name not in listing.columns:
            continue
        column = listing.columns[name]
        values[:, place] = column.values
        repeats += column.repeats
        faults.add(*column.faults)
        cells, count, remedy = column.first_refused, column.refused, column.remedy
        if found and not listing.are_labels:  # by what it holds, so one fault stands for all cells of the column
            cells, count = cells[:1], min(count, 1)
            remedy = (
                f"{int((column.values != UNKNOWN).sum())} of the {len(column.values)} cells of this column are 0 or 1, "
                "so it may be a label or not. Correct the cell, or name the label columns with --labels."
            )
        own = [cell_fault("label", listing.path, line, column.column, cell, remedy) for line, cell in cells]
        faults.add(*own, count=count)
    if repeats:  # the file of the RSNA 2019 competition has some
        what = f"{len(repeats)} row(s) repeat an earlier row with the same label (first: line {min(repeats)})"
        faults.warnings.append(f"{listing.path}: {what}; they are counted once.")
    return values


def _settle_unknown(
    listings: Mapping[str, Listing],
    names: tuple[str, ...],
    labels: dict[str, np.ndarray | None],
    learnt: Mapping[str, np.ndarray],
    options: LabelOptions,
    faults: Faults,
) -> None:
    """Refuse, keep or fill the labels that are not known, in place."""
    of_tables = [(name, listings[name], values) for name, values in labels.items() if values is not None]
    columns = [
        (name, listing, listing.columns[name])
        for _, listing, _ in of_tables
        for name in names
        if name in listing.columns
    ]
    unknown = [(name, listing, column) for name, listing, column in columns if column.unknown]
    if not unknown:
        return
    uncertain = sum(column.uncertain for _, _, column in columns)
    refused = unknown if options.unknown == "error" else []
    if options.unknown is None:
        # A column that holds -1 says what is not known, unless it holds 1 and nothing else: then -1 may be 0. Where one
        # says so, a label that tells nothing apart needs no answer: it is left out.
        positives, negatives = _count_learnt(labels, learnt)
        says = {name for name, _, column in columns if column.uncertain}
        masked = {
            name for name, ones, zeros in zip(names, positives, negatives, strict=True) if zeros or not ones
        } & says
        masked |= {
            name for name, few in zip(names, np.minimum(positives, negatives), strict=True) if says and not few
        } - says
        refused = [found for found in unknown if found[0] not in masked]
    count = sum(int((values == UNKNOWN).sum()) for _, _, values in of_tables)
    total = sum(values.size for _, _, values in of_tables)
    if refused:
        remedy = (
            "Write the label, or say what such cells mean: --unknown mask (not known: neither learnt from nor scored), "
            "or --unknown negative (0)."
        )
        for _, listing, column in refused:
            line, cell = column.unknown[0]
            faults.add(cell_fault("label", listing.path, line, column.column, cell, remedy))
    elif options.unknown == "negative":
        for name, _, values in of_tables:
            labels[name] = np.where(values == UNKNOWN, np.uint8(0), values)
        faults.warnings.append(f"labels: {count:,} of {total:,} are not known, and taken for 0.")
    else:
        why = (
            f", because {uncertain:,} cells are -1: --unknown negative takes all for 0"
            if options.unknown is None
            else ""
        )
        faults.warnings.append(
            f"labels: {count:,} of {total:,} are not known: they are neither learnt from nor scored (masked{why})."
        )


def _count_learnt(
    labels: Mapping[str, np.ndarray | None], learnt: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Count the positives and the negatives that are learnt from, or of all where none is: int64 (L,) each."""
    known = [values[learnt[name]] for name, values in labels.items() if values is not None and name in learnt]
    return count_values(np.concatenate(known or [values for values in labels.values() if values is not None]))


def _leave_out_constant(
    names: tuple[str, ...],
    labels: dict[str, np.ndarray | None],
    learnt: Mapping[str, np.ndarray],
    faults: Faults,
) -> tuple[str, ...]:
    """Leave out, in place, the labels of which one value alone is learnt; give the names of the others."""
    varied = np.minimum(*_count_learnt(labels, learnt)) > 0
    if varied.all() or not varied.any() or faults.count:
        return names
    for name, own in labels.items():
        labels[name] = None if own is None else own[:, varied]
    constant = [name for name, kept in zip(names, varied, strict=True) if not kept]
    faults.warnings.append(
        f"labels: {listed(constant)} left out: all that is known of them is the same, so nothing can be told apart."
    )
    return tuple(name for name, kept in zip(names, varied, strict=True) if kept)
