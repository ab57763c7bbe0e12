"""What `python -m features audit` does: read, audit, write, print."""

from pathlib import Path

from features.audit.audit import audit
from features.audit.inputs import add_groups, gather, read_folds
from features.audit.report import print_audit, write_audit
from features.common.errors import InputError
from features.common.text import make_console
from features.dataset.dataset import DatasetOptions, read_dataset
from features.store.cache import FeatureCache


def audit_cache(cache: Path, data: Path, run: Path | None, out: Path | None, options: DatasetOptions) -> None:
    """Audit a data set by its cache.

    Args:
        cache: the cache's folder.
        data: the data set's folder; its images are not opened.
        run: folder of a finished run, whose folds are audited too, and whose groups are taken where the data set names
            none; None for none.
        out: folder to write to; None takes `run`, or else `audit` in the cache.
        options: of the CSV files.

    Raises:
        InputError: bad input.
    """
    feature_cache = FeatureCache(cache)
    folds = {} if run is None else read_folds(run)
    dataset = read_dataset(data, options)
    if run is not None:
        dataset = add_groups(dataset, run)
    images, features, left_out = gather(dataset, feature_cache, folds)
    train = images.rows("train")
    without_fold = 0 if run is None else int((images.folds[train] < 0).sum())
    if without_fold and without_fold == len(train):
        raise InputError(
            f"{run} held none of the {len(train)} training images of {data} out, so it has no folds of theirs. Name a "
            "run of this data set with --run, or none."
        )
    with make_console(stderr=True).status(f"comparing {len(images.image_ids):,} images"):
        found = audit(images, features)
    folder = out or run or cache / "audit"
    record = {"data": str(data), "cache": str(cache), "run": None if run is None else str(run)}
    write_audit(found, folder, record | {"splits_without_features": list(left_out)})
    for name in left_out:
        print(f"{name}: {cache} holds no features of it, so it is left out")
    if without_fold:
        print(f"train: {run} did not hold {without_fold} of {len(train)} images out, so their folds are not known")
    print_audit(found, folder)
