"""Read what runs predicted of their training images, and join them by image id."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from classify.rundir.files import read_out_of_fold
from classify.rundir.saved_run import SavedRun
from features.common.arrays import Groups, Labels, Probabilities
from features.common.errors import InputError
from features.common.text import first_few
from features.store.run_labels import RunLabels


@dataclass(frozen=True)
class ComparedRun:
    """What one model of a run says of the images that all runs have, N of them.

    Attributes:
        name: what the run is called beside the others.
        model: whose probabilities these are.
        fold_of_row: int64 array (N,): the fold that held each image out, of several repeats of the first.
        probabilities: out-of-fold, of the labels that all runs have; of several repeats the mean.
    """

    name: str
    run: SavedRun
    model: str
    fold_of_row: np.ndarray
    probabilities: Probabilities

    @property
    def note(self) -> str:
        """What its maker wanted to know of it later; "" where nothing."""
        return str(self.run.record.get("note") or "")


@dataclass(frozen=True)
class JoinedRuns:
    """Runs, beside each other on the images and labels that all of them have.

    Attributes:
        runs: in the order in which they were named.
        image_ids: N ids, in the first run's order.
        labels: the truth, in which all runs agree.
        groups: two images are of one group if they are of one group in any run; None where no run knows groups.
        caveats: in what the runs are not alike, so that a difference may come from there; sentences.
    """

    runs: tuple[ComparedRun, ...]
    label_names: tuple[str, ...]
    image_ids: tuple[str, ...]
    labels: Labels
    groups: Groups | None
    caveats: tuple[str, ...]


def join_runs(folders: Sequence[Path], model: str | None) -> JoinedRuns:
    """Read the final model of each run, or the model of a name, and keep the images and labels that all runs have.

    Images whose truth is not the same in all runs are left out. What is left out, and where folds or groups differ, is
    said in `caveats`.

    Raises:
        InputError: fewer than two runs, or one twice; a folder holds no finished run, or a file of it is damaged; a run
            has no such model; or the runs have no label or no image in common.
    """
    if len(folders) < 2:
        raise InputError("compare needs at least two runs. Name their folders: python -m classify compare RUN1 RUN2")
    resolved = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, resolved, strict=True):
        if resolved.count(path) > 1:
            raise InputError(f"{folder} is named twice. Name each run once.")
    saved = [SavedRun.open(folder) for folder in folders]
    names = dict(zip(_name_folders(folders), saved, strict=True))
    models = [run.choose(model) for run in saved]
    known = [run.labels["train"] for run in saved]

    shared = [label for label in saved[0].label_names if all(label in run.label_names for run in saved)]
    if not shared:
        each = "; ".join(f"{name}: {first_few(run.label_names)}" for name, run in names.items())
        raise InputError(f"the runs have no label in common ({each}). Compare runs of the same labels.")
    image_ids, truths, caveats = _join_images(names, known, shared)
    agreed = np.all([truth == truths[0] for truth in truths], axis=(0, 2))
    if not agreed.all():
        other = [image_id for image_id, same in zip(image_ids, agreed, strict=True) if not same]
        if not agreed.any():
            raise InputError("the runs agree on the truth of no image. Compare runs of the same data set.")
        caveats.append(
            f"The truth of {len(other):,} of the {len(image_ids):,} images is not the same in all runs; they are left "
            f"out: {first_few(other)}."
        )
    kept = [image_id for image_id, same in zip(image_ids, agreed, strict=True) if same]
    groups, folds = [_of_rows(own, kept, lambda own: own.groups) for own in known], []
    for own in known:
        of_run = _of_rows(own, kept, lambda own: own.folds)
        assert of_run is not None  # every training image of a run has a fold
        folds.append(of_run)
    joined, of_groups = _join_groups(list(names), groups)
    compared = [
        ComparedRun(name, run, chosen, fold_of_row, _probabilities(run, chosen, kept, shared))
        for (name, run), chosen, fold_of_row in zip(names.items(), models, folds, strict=True)
    ]
    first = known[0]
    rows = _rows(first, kept)
    columns = [saved[0].label_names.index(label) for label in shared]
    caveats += [*of_groups, *_doubt_folds(compared), *_doubt_repeats(compared)]
    return JoinedRuns(
        tuple(compared), tuple(shared), tuple(kept), first.labels[rows][:, columns], joined, tuple(caveats)
    )


def _name_folders(folders: Sequence[Path]) -> list[str]:
    """Call runs by the last parts of their paths, as many as tell them apart."""
    for count in range(1, max(len(folder.resolve().parts) for folder in folders)):
        names = ["/".join(folder.resolve().parts[-count:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    return [str(folder.resolve()) for folder in folders]


def _join_images(
    names: dict[str, SavedRun], known: Sequence[RunLabels], shared: Sequence[str]
) -> tuple[list[str], list[Labels], list[str]]:
    """List the images of all runs, their truth by run, and what is left out by name."""
    caveats = []
    left_out = dict.fromkeys(label for run in names.values() for label in run.label_names if label not in shared)
    if left_out:
        caveats.append(f"Labels that not all runs have are left out: {first_few(list(left_out))}.")
    everywhere = set(known[0].image_ids).intersection(*(own.image_ids for own in known))
    image_ids = [image_id for image_id in known[0].image_ids if image_id in everywhere]
    if not image_ids:
        raise InputError("the runs have no training image in common. Compare runs of the same data set.")
    for name, own in zip(names, known, strict=True):
        if len(own.image_ids) > len(image_ids):
            caveats.append(
                f"{name} learnt from {len(own.image_ids):,} images; it is scored on the {len(image_ids):,} that all "
                "runs have."
            )
    truths = []
    for run, own in zip(names.values(), known, strict=True):
        columns = [run.label_names.index(label) for label in shared]
        truths.append(own.labels[_rows(own, image_ids)][:, columns])
    return image_ids, truths, caveats


def _rows(known: RunLabels, image_ids: Sequence[str]) -> np.ndarray:
    """Find images among those of a run."""
    row_of = {image_id: row for row, image_id in enumerate(known.image_ids)}
    return np.array([row_of[image_id] for image_id in image_ids], np.int64)


def _of_rows(
    known: RunLabels, image_ids: Sequence[str], column: Callable[[RunLabels], np.ndarray | None]
) -> np.ndarray | None:
    """Take a column of some images; None where the run does not know it."""
    values = column(known)
    return None if values is None else values[_rows(known, image_ids)]


def _probabilities(run: SavedRun, model: str, image_ids: Sequence[str], labels: Sequence[str]) -> Probabilities:
    """Read the out-of-fold probabilities of some images and labels."""
    columns = [run.label_names.index(label) for label in labels]
    return read_out_of_fold(run, [model], image_ids)[model][:, columns]


def _join_groups(names: Sequence[str], groups: Sequence[np.ndarray | None]) -> tuple[Groups | None, list[str]]:
    """Join the groups of all runs, of each str (N,): the coarsest, so that no draw cuts a group of any run."""
    known = [own for own in groups if own is not None]
    if not known:
        return None, []
    unknown = [name for name, own in zip(names, groups, strict=True) if own is None]
    caveats = [f"No groups are known to {first_few(unknown)}, whose folds may cut them."] if unknown else []
    codes = [_partition(own) for own in known]
    if all(np.array_equal(own, codes[0]) for own in codes):
        return known[0], caveats
    count = len(codes[0])
    offsets = count + np.cumsum([0, *(int(own.max()) + 1 for own in codes[:-1])])
    nodes = np.concatenate([own + offset for own, offset in zip(codes, offsets, strict=True)])
    rows = np.tile(np.arange(count), len(codes))
    size = int(nodes.max()) + 1
    graph = coo_array((np.ones(len(rows), bool), (rows, nodes)), shape=(size, size))
    component = connected_components(graph, directed=False)[1][:count]
    caveats.append(
        f"The groups are not the same in all runs: here images are together that are together in any of them, in "
        f"{len(np.unique(component)):,} groups."
    )
    return component.astype(np.str_), caveats


def _partition(values: np.ndarray) -> np.ndarray:
    """Number the parts of rows by where they begin, so that equal partitions have equal numbers: int64 (N,)."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _doubt_folds(runs: Sequence[ComparedRun]) -> list[str]:
    """Say which runs have other folds than the first."""
    first = _partition(runs[0].fold_of_row)
    other = [own.name for own in runs[1:] if not np.array_equal(_partition(own.fold_of_row), first)]
    if not other:
        return []
    return [
        f"Other folds than those of {runs[0].name}: {first_few(other)}. Their differences hold also what the draw of "
        "the folds does, which no interval here covers."
    ]


def _doubt_repeats(runs: Sequence[ComparedRun]) -> list[str]:
    """Say where a run's probabilities are means over repeats."""
    repeated = [own.name for own in runs if own.run.record["folds"]["repeats"] > 1]
    if not repeated:
        return []
    return [
        f"Of {first_few(repeated)}, which drew folds several times, the mean probabilities are ranked, within the "
        "folds of the first draw; a mean of several models ranks better than one."
    ]
