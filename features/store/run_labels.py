"""What a run knows of its labelled images, labels.csv, and says of those that were held out, oof_probability.csv.

Stage 2 writes both; the audit and the map read them, too.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.common.arrays import UNKNOWN, Probabilities
from features.common.cells import read_cell
from features.common.errors import InputError, cause_of
from features.common.files import digest_file, read_record

if TYPE_CHECKING:
    import pandas as pd

#: The file in a run's folder: `split`, `ID`, `group`, `fold`, `stored`, and the labels; one row per labelled image that
#: has features. A cell is empty where no group or label is known, or no fold held the image out.
RUN_LABELS = "labels.csv"
#: The file of a run's out-of-fold probabilities; there is a row for each model and image.
OUT_OF_FOLD = "oof_probability.csv"
#: What makes a folder a run, published last: how it came about, and under `files` the digest of each of its files.
MARK = "run.json"
NO_FOLD = -1
_COLUMNS = ("split", "ID", "group", "fold", "stored")
#: Rows that are texts at a time.
_BLOCK = 100_000


@dataclass(frozen=True)
class RunLabels:
    """The labelled images of one split of a run, N of them.

    Attributes:
        image_ids: N ids, in the data set's order.
        groups: str array (N,), "" where an image has none; None where the run knew no groups.
        folds: int64 array (N,), the fold that held the image out, or `NO_FOLD`.
        labels: uint8 array (N, L), 0, 1 or `UNKNOWN`.
        stored: str array (N,), the folder of the cache that keeps the image's features, "train" or "test"; None where
            it is that of the split.
    """

    image_ids: tuple[str, ...]
    groups: np.ndarray | None
    folds: np.ndarray
    labels: np.ndarray
    stored: np.ndarray | None = None


def write_run_labels(folder: Path, label_names: Sequence[str], splits: Mapping[str, RunLabels]) -> None:
    """Write the file of a run, the same bytes on every system."""
    with (folder / RUN_LABELS).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, *label_names])
        for name, split in splits.items():
            groups = [""] * len(split.image_ids) if split.groups is None else split.groups
            where = [name] * len(split.image_ids) if split.stored is None else split.stored
            rows = zip(split.image_ids, groups, split.folds, where, split.labels, strict=True)
            for image_id, group, fold, stored, labels in rows:
                cells = ("" if value == UNKNOWN else value for value in labels)
                writer.writerow([name, image_id, group, "" if fold == NO_FOLD else fold, stored, *cells])


def read_run_labels(path: Path) -> dict[str, RunLabels]:
    """Read what `write_run_labels` wrote, by split; both in the file's order.

    Raises:
        InputError: it cannot be read, or is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = ([read_cell(cell) for cell in row] for row in csv.reader(file))
            header = next(rows, [])
            if not header:
                raise ValueError("it is empty")
            if tuple(header[: len(_COLUMNS)]) != _COLUMNS:
                raise ValueError(f"its columns are {', '.join(header)}, expected {', '.join(_COLUMNS)} and the labels")
            blocks: dict[str, list[RunLabels]] = {}
            while block := list(islice(rows, _BLOCK)):  # as lists of texts, all rows would take ten times as much
                if any(len(row) != len(header) for row in block):
                    raise ValueError(f"a row does not have {len(header)} cells")
                for name in dict.fromkeys(row[0] for row in block):
                    blocks.setdefault(name, []).append(_to_split([row for row in block if row[0] == name]))
        return {name: _join(of_split) for name, of_split in blocks.items()}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
    except (ValueError, OverflowError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}). Make the run again.") from None


def find_run_labels(run: Path) -> Path:
    """Find the labels.csv of a run; an `InputError` says that it is not the file that the run wrote."""
    return find_run_file(run, RUN_LABELS)


def find_run_file(run: Path, name: str) -> Path:
    """Find a file of a run by its name; an `InputError` says that it is not the file that the run wrote."""
    path = run / name
    try:
        known = json.loads((run / MARK).read_text(encoding="utf-8"))["files"][name]
        found = digest_file(path).hex()
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise InputError(f"{path} cannot be read: {cause_of(error)}") from None
        raise InputError(
            f"{run} is not a run: {MARK} or {name} is missing. Give the folder of a finished run."
        ) from None
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{run} is not a run: {MARK} or {name} is damaged. Give the folder of a finished run."
        ) from None
    if found != known:
        raise InputError(f"{path} was changed by hand, or is damaged. Put the original back, or make the run again.")
    return path


def read_final_model(run: Path) -> tuple[str, tuple[str, ...]]:
    """Read the name of a run's final model, and the L labels.

    Raises:
        InputError: the folder is not a finished run.
    """
    remedy = "Give the folder of a finished run."
    record = read_record(run / MARK, remedy, "final_model", "labels")
    if not isinstance(record["labels"], list):
        raise InputError(f"{run / MARK} cannot be read (labels is not a list). {remedy}")
    return str(record["final_model"]), tuple(map(str, record["labels"]))


def read_held_out(
    path: Path, label_names: Sequence[str], models: Sequence[str], image_ids: Sequence[str]
) -> dict[str, Probabilities] | None:
    """Read what some models say of some training images, by model; None where the file does not have each of them once.

    Args:
        path: oof_probability.csv of a run, its bytes checked.
        label_names: the L labels.
        models: names of models.
        image_ids: N ids.
    """
    import pandas as pd  # which a run loads later, and `--help` never

    rows_by_id = pd.Index(image_ids, dtype=object)
    found = {model: np.empty((len(image_ids), len(label_names)), np.float32) for model in models}
    times_read = {model: np.zeros(len(image_ids), np.int64) for model in models}
    for block in _read_blocks(path, label_names):
        if block is None or not {"ID", "model", *label_names} <= {*block}:
            return None
        block["model"] = block["model"].map(read_cell, na_action="ignore")
        for model, own in block[block["model"].isin(models)].groupby("model"):
            rows = rows_by_id.get_indexer(own["ID"].map(read_cell, na_action="ignore"))
            asked = rows >= 0
            found[model][rows[asked]] = own.loc[asked, list(label_names)].to_numpy(np.float32)
            np.add.at(times_read[model], rows[asked], 1)
    return found if all((of_model == 1).all() for of_model in times_read.values()) else None


def _read_blocks(path: Path, label_names: Sequence[str]) -> "Iterator[pd.DataFrame | None]":
    """Read a table of probabilities block by block, its words as they stand in the file; None where it is no table."""
    import pandas as pd

    with path.open(encoding="utf-8", newline="") as file:
        names = [read_cell(cell) for cell in next(csv.reader(file), [])]
    types = {"ID": "object", "model": "object", **dict.fromkeys(label_names, "float32")}
    empty = {"keep_default_na": False, "na_values": [""]}
    try:
        yield from pd.read_csv(path, names=names, header=0, dtype=types, encoding="utf-8", chunksize=_BLOCK, **empty)
    except ValueError:  # of pandas alone: a row too long, or a text where a number is expected
        yield None


def _to_split(rows: Sequence[Sequence[str]]) -> RunLabels:
    """Take rows of one split apart, with "" for no group; ValueError if a fold or a label is not a number."""
    labels = [[cell or UNKNOWN for cell in row[len(_COLUMNS) :]] for row in rows]
    return RunLabels(
        image_ids=tuple(row[1] for row in rows),
        groups=np.array([row[2] for row in rows], np.str_),
        folds=np.array([int(row[3]) if row[3] else NO_FOLD for row in rows], np.int64),
        labels=np.array(labels, np.str_).astype(np.uint8),
        stored=np.array([row[4] for row in rows], np.str_),
    )


def _join(blocks: Sequence[RunLabels]) -> RunLabels:
    """Join the blocks of one split; ValueError if an image is there twice, or a label is none."""
    groups = np.concatenate([block.groups for block in blocks if block.groups is not None])
    image_ids = tuple(chain.from_iterable(block.image_ids for block in blocks))
    if len({*image_ids}) < len(image_ids):
        raise ValueError("an image has two rows")
    if not all(np.isin(block.labels, (0, 1, UNKNOWN)).all() for block in blocks):
        raise ValueError("a label is neither 0, 1 nor empty")
    return RunLabels(
        image_ids=image_ids,
        groups=groups if (groups != "").any() else None,
        folds=np.concatenate([block.folds for block in blocks]),
        labels=np.concatenate([block.labels for block in blocks]),
        stored=np.concatenate([block.stored for block in blocks if block.stored is not None]),
    )
