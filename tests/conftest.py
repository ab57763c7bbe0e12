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
#: What may run apart from its file, for it shares nothing with it; and what runs together, for it shares a run.
_APART = (
    "test_the_command_gives_what_keras_applications_gives",
    "test_a_keras_backbone_gives_what_keras_applications_gives",
)
_TOGETHER = Path("classify", "report")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Spread the tests over the workers by file, so that what a file shares is made once."""
    file = _file(item)
    apart, together = item.name.startswith(_APART), file.is_relative_to(_TOGETHER)
    item.add_marker(pytest.mark.xdist_group(item.name if apart else str(_TOGETHER if together else file)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker of the suite waits for another in the end."""
    items.sort(key=lambda item: _file(item).parts[0] not in _FIRST)


def _file(item: pytest.Item) -> Path:
    """The file of a test, within this folder."""
    return item.path.relative_to(Path(__file__).parent)


def pytest_collection_finish() -> None:
    """Spare the collector what was imported: TensorFlow's objects stay, and looking through them costs a tenth.

    Building a model makes thousands of objects that stay, too: to look through them less often saves another 7 %.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
