"""scripts.benchmark_precision: it refuses to compare where there are not two devices."""

import pytest

from features.common.errors import InputError
from scripts.benchmark_extract import make_frozen
from scripts.benchmark_precision import benchmark_precision


def test_a_backend_without_two_devices_is_refused(monkeypatch):
    monkeypatch.setattr("scripts.benchmark_precision.device_name", lambda: "CPU")
    with pytest.raises(InputError, match="set KERAS_BACKEND=jax"):
        benchmark_precision(make_frozen(("mobilenet",), "random"), images=1, repeats=1)
