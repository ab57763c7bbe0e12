"""The command as a process of its own: its memory, and what a signal does to it."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from features.store.cache import FeatureCache
from tests import ROOT, heed_signals
from tests.extract.stand_ins import write_images


def command(data, cache, model):
    return [sys.executable, "-m", "extract", "run", str(data), "--backbone", f"own={model}", "--cache", str(cache)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """6,000 images, and the first 1,000 of them."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "6000" / "train", 6000, side=16)
    (folder / "1000" / "train").mkdir(parents=True)
    for path in sorted((folder / "6000" / "train").iterdir())[:1000]:
        os.link(path, folder / "1000" / "train" / path.name)
    return folder


def test_peak_memory_does_not_grow_with_the_data_set(images, own_model, tmp_path):
    peaks = {}
    for count in (1000, 6000):
        with (tmp_path / "output").open("w") as output:
            process = subprocess.Popen(
                command(images / str(count), tmp_path / str(count), own_model), cwd=ROOT, stdout=output
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert f"{count:,} rows extracted" in (tmp_path / "output").read_text()
        peaks[count] = usage.ru_maxrss
    assert peaks[6000] < 1.1 * peaks[1000]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_cleanly_and_it_goes_on_from_there(images, own_model, tmp_path, number):
    cache = tmp_path / "cache"
    arguments = [*command(images / "6000", cache, own_model), "--batch-size", "1", "--workers", "1"]
    process = subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals
    )
    while not (cache / "train" / "own.h5.lock").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.5)
    process.send_signal(number)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 128 + number, errors
    assert errors == ""
    assert "stopping: the batch in flight is finished" in output
    found = re.search(r"stopped after .*: ([\d,]+) new rows are kept", output)
    assert found is not None
    kept = int(found[1].replace(",", ""))
    assert kept < 6000

    again = subprocess.run(
        command(images / "6000", cache, own_model), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"{6000 - kept:,} rows extracted" in again.stdout
    assert FeatureCache(cache).open("train", "own").rows == 6000
