"""What `python -m features audit` does: read, audit, write, print."""

from pathlib import Path

from rich.console import Console

from features.audit import audit
from features.audit_inputs import gather, read_folds
from features.audit_report import print_audit, write_audit
from features.cache import FeatureCache
from features.dataset import DatasetOptions, read_dataset


def audit_cache(cache: Path, data: Path, run: Path | None, out: Path | None, options: DatasetOptions) -> None:
    """Audit a data set by its cache.

    Args:
        cache: the cache's folder.
        data: the data set's folder; its images are not opened.
        run: folder of a finished run, whose folds are audited too; None for none.
        out: folder to write to; None takes `run`, or else `audit` in the cache.
        options: of the CSV files.

    Raises:
        InputError: bad input.
    """
    feature_cache = FeatureCache(cache)
    folds = {} if run is None else read_folds(run)
    images, features, left_out = gather(read_dataset(data, options), feature_cache, folds)
    with Console(stderr=True).status(f"comparing {len(images.image_ids):,} images"):
        found = audit(images, features)
    folder = out or run or cache / "audit"
    record = {"data": str(data), "cache": str(cache), "run": None if run is None else str(run)}
    write_audit(found, folder, record | {"splits_without_features": list(left_out)})
    for name in left_out:
        print(f"{name}: {cache} holds no features of it, so it is left out")
    print_audit(found, folder)
