"""Settings of the whole run of tests."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# OpenMP's threads wait for work by spinning, and take the cores from the other workers of the suite: boosted trees are
# then several times as slow. Set before scikit-learn loads OpenMP; no computed value changes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# So do those of OpenBLAS. Commands compute by one of its threads anyway, which tests see to.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Other workers may hold up any example, above all one that starts a process.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

#: The rooms whose tests take longest.
_FIRST = ("extract", "classify", "scripts")
#: What may run apart from its file, for it shares nothing with it; and what runs together, for it shares a run.
_APART = (
    "test_the_command_gives_what_keras_applications_gives",
    "test_a_keras_backbone_gives_what_keras_applications_gives",
)
_TOGETHER = "tests/classify/report/"


class _ByFile(LoadScopeScheduling):
    """Spreads the tests over the workers by file, so that what a file shares is made once.

    Not `--dist loadgroup`: xdist 3.8 marks groups in a field that pytest 9.2 no longer reads, so it spreads all tests.
    """

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        if test.startswith(_APART):
            return nodeid
        return _TOGETHER if file.startswith(_TOGETHER) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Spread the tests over the workers; those marked `backends`, which are few and share little, in xdist's way."""
    return None if config.option.markexpr == "backends" else _ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no worker of the suite waits for another in the end."""
    items.sort(key=lambda item: item.path.relative_to(Path(__file__).parent).parts[0] not in _FIRST)


def pytest_collection_finish() -> None:
    """Spare the collector what was imported: TensorFlow's objects stay, and looking through them costs a tenth.

    Building a model makes thousands of objects that stay, too: to look through them less often saves another 7 %.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window, Playwright's `Browser`."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()
