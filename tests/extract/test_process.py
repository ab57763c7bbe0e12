"""The command as a process of its own: its memory, and what a signal does to it."""

import os
import re
import resource
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from extract.__main__ import app
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache, verify_cache
from tests import ROOT, heed_signals
from tests.extract.stand_ins import write_images


def command(data, cache, model):
    return [sys.executable, "-m", "extract", "run", str(data), "--backbone", f"own={model}", "--cache", str(cache)]


def run_here(data, cache, model):
    """Run the command in this process, where Keras is loaded already; returns what it says."""
    result = CliRunner().invoke(app, command(data, cache, model)[3:])
    assert result.exit_code == 0, result.output
    return result.output


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

    assert f"{6000 - kept:,} rows extracted" in run_here(images / "6000", cache, own_model)
    assert FeatureCache(cache).open("train", "own").rows == 6000


@pytest.fixture(scope="module")
def flat_model(tmp_path_factory):
    """The file of a model that only flattens: 8 x 8 pixels to 192 features, so that rows take most of the space."""
    keras = import_keras()
    path = tmp_path_factory.mktemp("flat") / "flat.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()]).save(path)
    return path


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 100 kB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def extract(data, cache, model, largest_file=resource.RLIM_INFINITY):
    """Run the command with a limit on the size of a file, as a quota has it."""
    limit = (largest_file, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    return subprocess.run(
        command(data, cache, model),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )


def assert_refused_without_loss(run, path, reason):
    """The cache file did not fit, but the parts did, and no temporary file is left."""
    refused = rf"error: {path} needs [\d.]+ [kM]B, which its disk does not give: {reason}\. Nothing is lost\. Make room"
    assert run.returncode == 2, run.stderr
    assert re.match(refused, run.stderr), run.stderr
    assert not path.exists()
    assert not list(path.parent.rglob(".*.tmp"))


def assert_finishes_without_extracting(data, cache, model, count):
    """All rows come from the parts."""
    assert f"nothing left to do: all {count:,} rows are up to date" in run_here(data, cache, model)
    assert [(rows, finding) for _, rows, finding in verify_cache(FeatureCache(cache))] == [(count, None)]
    assert not list(cache.rglob("*.npz"))


def test_a_quota_that_the_cache_file_does_not_fit_in_ends_with_a_message(flat_model, tmp_path):
    write_images(tmp_path / "data" / "train", 1500, side=8)
    cache = tmp_path / "cache"
    refused = extract(tmp_path / "data", cache, flat_model, largest_file=1_000_000)  # parts: 0.9 MB at most
    assert_refused_without_loss(refused, cache / "train" / "own.h5", "File too large")
    assert_finishes_without_extracting(tmp_path / "data", cache, flat_model, 1500)


def test_a_disk_that_the_cache_file_does_not_fit_on_ends_with_a_message(flat_model, tmp_path, small_disk):
    write_images(tmp_path / "data" / "train", 60, side=8)
    cache = small_disk / "cache"
    refused = extract(tmp_path / "data", cache, flat_model)
    assert_refused_without_loss(refused, cache / "train" / "own.h5", "No space left on device")
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert_finishes_without_extracting(tmp_path / "data", cache, flat_model, 60)
