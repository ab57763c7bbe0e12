"""Settings of the whole run of tests."""

import gc
import os
from pathlib import Path

import pytest

# OpenMP's threads wait for work by spinning, and take the cores from the other workers of the suite: boosted trees are
# then several times as slow. Set before scikit-learn loads OpenMP; no computed value changes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


#: The rooms whose tests take longest.
_FIRST = ("extract", "classify", "scripts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker of the suite waits for another in the end."""
    folder = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(folder).parts[0] not in _FIRST)


def pytest_collection_finish() -> None:
    """Spare the collector what was imported: TensorFlow's objects stay, and looking through them costs a tenth."""
    gc.collect()
    gc.freeze()
