"""Settings of the whole run of tests."""

import gc
import os

# OpenMP's threads wait for work by spinning, and take the cores from the other workers of the suite: boosted trees are
# then several times as slow. Set before scikit-learn loads OpenMP; no computed value changes.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_finish() -> None:
    """Spare the collector what was imported: TensorFlow's objects stay, and looking through them costs a tenth."""
    gc.collect()
    gc.freeze()
