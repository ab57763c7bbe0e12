"""Settings of the whole run of tests."""

import gc


def pytest_collection_finish() -> None:
    """Spare the collector what was imported: TensorFlow's objects stay, and looking through them costs a tenth."""
    gc.collect()
    gc.freeze()
