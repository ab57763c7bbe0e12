"""How many fits the memory has room for at a time."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sklearn.base import BaseEstimator

from classify.models.estimators import OneVsRest
from classify.models.heads import HeadSpec
from classify.models.linear import sampled_rows

logger = logging.getLogger(__name__)
#: Of the memory that is available, fits take so much at the most; scores and what is written later need the rest.
SHARE = 0.5
_MEMORY, _CGROUPS = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
#: Bytes that a fit takes for each feature of the rows that it learns from: the rows, standardised rows, and what the
#: solver makes of them; as measured, see docs/decisions.md. A head copies a fifth of the rows, to validate on.
_BYTES, _BYTES_OF_SVM, _BYTES_OF_HEAD = 13, 32, 1
#: Bytes of a feature in memory, and for each parameter of a head: weights, gradients, two slots, the best.
_FEATURE, _PARAMETER = 4, 20


class FitSize(NamedTuple):
    """What decides the memory of a fit: its estimator or head, the rows that it learns from, their columns.

    Attributes:
        parameters: of a head.
        on_disk: whether the features stay on the disk.
    """

    model: BaseEstimator | HeadSpec
    rows: int
    width: int
    parameters: int = 0
    on_disk: bool = False


def jobs_in_memory(jobs: int, fits: Iterable[FitSize]) -> int:
    """Give how many of some fits may run at a time, at least one and at most `jobs`, and log it where they are fewer.

    `jobs` is what was asked for.
    """
    needed = max(map(_bytes_of, fits), default=0)
    available = available_memory()
    if not needed or available is None:
        return jobs
    room = max(1, int(SHARE * available / needed))
    if room >= jobs:
        return jobs
    logger.warning(
        "%d fits at a time instead of %d: one may take %.1f GB, and %.1f GB of memory are available",
        room,
        jobs,
        needed / 1e9,
        available / 1e9,
    )
    return room


def available_memory() -> int | None:
    """Give the bytes that the system, or the control group of a container, has left; None where neither says so."""
    found = []
    if _MEMORY.exists():
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
        if "MemAvailable" in lines:
            found.append(1024 * int(lines["MemAvailable"].split()[0]))
    for folder, limit, used, cached in (
        (_CGROUPS, "memory.max", "memory.current", "inactive_file"),
        (_CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (folder / limit).exists() and (folder / used).exists():
            most = (folder / limit).read_text().strip()
            if most.isdigit():  # not the word max
                statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                in_use = int((folder / used).read_text()) - int(statistics.get(cached, 0))
                found.append(max(0, int(most) - in_use))
    return min(found, default=None)


def _bytes_of(fit: FitSize) -> int:
    """Bytes that a fit takes, at most."""
    cells = fit.rows * fit.width
    if isinstance(fit.model, HeadSpec):  # it copies the rows alone that it is validated on
        return _PARAMETER * fit.parameters + (0 if fit.on_disk else _BYTES_OF_HEAD * cells)
    if isinstance(fit.model, OneVsRest):
        svm = type(fit.model.classifier).__name__ == "PlattScaledSVM"
        return (_BYTES_OF_SVM if svm else _BYTES) * cells
    # Linear models make more of a sample alone; of features on the disk they read blocks.
    sampled = min(fit.rows, sampled_rows(fit.width)) * fit.width
    return _BYTES * sampled + (0 if fit.on_disk else _FEATURE * (cells - sampled))
