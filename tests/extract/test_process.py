"""The command and its surroundings: its memory, what a signal does to it, and a disk without room."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from extract import pipeline
from extract.__main__ import app
from features.common.keras_import import import_keras
from features.store.cache import FeatureCache, verify_cache
from tests import ROOT, heed_signals
from tests.extract.backbones.tiny_onnx import write_mean_colour
from tests.extract.stand_ins import write_images


def arguments(data, cache, model):
    return ["run", str(data), "--backbone", f"own={model}", "--features", "last", "--cache", str(cache)]


def run_here(data, cache, model, *options):
    """Run the command in this process, where Keras is loaded already."""
    return CliRunner().invoke(app, [*arguments(data, cache, model), *options])


def assert_says(run, message):
    assert run.exit_code == 0, run.output
    assert message in run.output


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """6,000 images, and the first 1,000 and 200 of them."""
    folder = tmp_path_factory.mktemp("images")
    write_images(folder / "6000" / "train", 6000, side=16)
    for count in (1000, 200):
        (folder / str(count) / "train").mkdir(parents=True)
        for path in sorted((folder / "6000" / "train").iterdir())[:count]:
            os.link(path, folder / str(count) / "train" / path.name)
    return folder


def test_peak_memory_does_not_grow_with_the_data_set(images, own_model, tmp_path):
    program = """
import json, resource, sys
from extract import pipeline
from extract.__main__ import app
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    runs = json.dumps([arguments(images / count, tmp_path / count, own_model) for count in ("1000", "6000")])
    done = subprocess.run([sys.executable, "-c", program, runs], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.findall(r"([\d,]+) rows extracted|peak (\d+)", done.stdout)
    (first, _), (_, of_1000), (second, _), (_, of_6000) = found
    assert (first, second) == ("1,000", "6,000")
    assert int(of_6000) < 1.1 * int(of_1000)


def assert_ended_cleanly(code, output, number, count):
    """The run was stopped by a signal; returns how many of `count` rows it kept."""
    assert code == 128 + number, output
    assert "stopping: what is being computed or compiled is finished, and all that is computed is written" in output
    found = re.search(r"stopped after .*: ([\d,]+) new rows are kept", output)
    assert found is not None
    kept = int(found[1].replace(",", ""))
    assert kept < count
    return kept


def test_a_signal_ends_the_command_cleanly_and_it_goes_on_from_there(images, tmp_path):
    pytest.importorskip("onnxruntime")  # a process that need not load TensorFlow
    cache, model = tmp_path / "cache", write_mean_colour(tmp_path)
    command = [sys.executable, "-m", "extract", *arguments(images / "6000", cache, model)]
    process = subprocess.Popen(
        [*command, "--batch-size", "1", "--workers", "1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )
    while not (cache / "train" / "own.h5.lock").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=600)
    assert errors == ""
    kept = assert_ended_cleanly(process.returncode, output, signal.SIGINT, 6000)
    assert_says(run_here(images / "6000", cache, model), f"{6000 - kept:,} rows extracted")
    assert FeatureCache(cache).open("train", "own").rows == 6000


@pytest.fixture
def not_ended_by_signals():
    """A signal that the command leaves to others fails the test, and does not end this process."""

    def unheeded(number, frame):
        raise AssertionError(f"nobody heeded signal {number}")

    previous = {number: signal.signal(number, unheeded) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_ends_a_run_cleanly(images, own_model, tmp_path, monkeypatch, not_ended_by_signals, number):
    cache = tmp_path / "cache"
    monkeypatch.setattr(pipeline, "PART_SECONDS", 0.0)  # each batch is a part

    def send():
        while not list(cache.rglob("*.npz")):
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    run = run_here(images / "200", cache, own_model, "--batch-size", "1", "--workers", "1")
    sender.join()
    assert run.stderr == ""
    kept = assert_ended_cleanly(run.exit_code, run.output, number, 200)
    assert kept > 0
    assert_says(run_here(images / "200", cache, own_model), f"{200 - kept:,} rows extracted")


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


@pytest.fixture
def lift_quota():
    """Limit the size of a file to 1 MB, as a quota does; what it gives lifts the limit."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, previous[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, previous)
    resource.setrlimit(resource.RLIMIT_FSIZE, previous)


def assert_refused_without_loss(run, path, reason):
    """The cache file did not fit, but the parts did, and no temporary file is left."""
    refused = (
        rf"error: {path} needs [\d.]+ [kM]B, which its disk does not give: {reason}\. Make room .* Nothing is lost"
    )
    assert run.exit_code == 2, run.output
    assert re.match(refused, run.stderr), run.stderr
    assert not path.exists()
    assert not list(path.parent.rglob(".*.tmp"))


def assert_finishes_without_extracting(data, cache, model, count):
    """All rows come from the parts."""
    assert_says(run_here(data, cache, model), f"nothing left to do: all {count:,} rows are up to date")
    assert [(rows, finding) for _, rows, finding in verify_cache(FeatureCache(cache))] == [(count, None)]
    assert not list(cache.rglob("*.npz"))


def test_a_quota_that_the_cache_file_does_not_fit_in_ends_with_a_message(flat_model, tmp_path, lift_quota):
    write_images(tmp_path / "data" / "train", 1500, side=8)
    cache = tmp_path / "cache"
    refused = run_here(tmp_path / "data", cache, flat_model)  # parts: 0.9 MB at most
    lift_quota()
    assert_refused_without_loss(refused, cache / "train" / "own.h5", "File too large")
    assert_finishes_without_extracting(tmp_path / "data", cache, flat_model, 1500)


def test_a_disk_that_the_cache_file_does_not_fit_on_ends_with_a_message(flat_model, tmp_path, small_disk):
    write_images(tmp_path / "data" / "train", 60, side=8)
    cache = small_disk / "cache"
    refused = run_here(tmp_path / "data", cache, flat_model)
    assert_refused_without_loss(refused, cache / "train" / "own.h5", "No space left on device")
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True)
    assert_finishes_without_extracting(tmp_path / "data", cache, flat_model, 60)
