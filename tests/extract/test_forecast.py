"""What an extraction says that it will take, and that a dry run leaves everything as it was."""

import shutil
import threading
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from extract import extraction
from extract.__main__ import app
from extract.extraction import ExtractionOptions, Work
from extract.forecast import Forecast
from extract.images.reading import Ranges, Reading, name_views
from extract.pipeline import Images
from extract.report import Report
from features.common.text import make_console
from features.dataset.dataset import read_images
from tests.extract.stand_ins import StandIns, backbone, write_images


@pytest.fixture
def work(tmp_path):
    """24 images through two backbones, the second with two kinds of features, three views of each, as float16."""
    write_images(tmp_path / "data" / "train", 20)
    write_images(tmp_path / "data" / "test", 4)
    images = [Images(name, *found) for name, found in read_images(tmp_path / "data").items()]
    backbones = [backbone("a"), backbone("b", features=("last", "mid"))]
    options = ExtractionOptions(tmp_path / "cache", "float16", 2, Reading(views=name_views("3"), ranges=str(Ranges())))
    return Work(images, backbones, options)


def measured(work, images):
    """What was measured of so many images: 0.5 s of the device by the first backbone, 1 s by the second."""
    report = Report.of(work.backbones)
    report.images = report.decoded = images
    for name, seconds in (("a", 0.5), ("b", 1.0)):
        report.backbones[name].images, report.backbones[name].seconds = images, seconds * images
    report.backbones["a"].widths, report.backbones["b"].widths = (10,), (10, 30)
    report.spend("compile", 7.0)
    return report


def test_time_and_room_follow_from_what_was_measured(work, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=15_000))
    forecast = Forecast(work)
    assert forecast.missing == {"a": 24, "b": 24}
    room = 24 * 3 * 2 * (10 + 10 + 30)
    assert room == 7_200
    assert forecast.lines(measured(work, 4)) == [
        f"forecast: 20 images left at 0.7 a second: some 30 s; {work.options.cache} takes 7.2 kB more, "
        "14.4 kB while it is at work, of 15.0 kB that are free."
    ]
    [line] = forecast.lines(measured(work, 4), done=False)
    assert "24 images left at 0.7 a second: some 43 s" in line  # with 7 s of compilation
    slow = measured(work, 4)
    slow.spend("read+decode", 16.0)  # 4 s of a core an image, by two threads
    assert "20 images left at 0.5 a second: some 40 s" in forecast.lines(slow)[0]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=14_000))
    assert forecast.lines(measured(work, 4))[1].startswith("warning: the disk has too little room.")


def test_rows_that_are_there_are_not_counted(work):
    console, stop = make_console(), threading.Event()
    first = [work.images[0]._replace(image_ids=work.images[0].image_ids[:5], paths=work.images[0].paths[:5])]
    extraction.extract(first, work.backbones[1:], work.options, StandIns(), console, stop)
    forecast = Forecast(work)
    assert forecast.missing == {"a": 24, "b": 19}
    extraction.extract(work.images, work.backbones, work.options, StandIns(), console, stop)
    assert Forecast(work).lines(measured(work, 4)) == ["forecast: all 24 images have their rows."]


def test_an_extraction_says_it_once_when_it_has_measured_enough(work, monkeypatch, capsys):
    monkeypatch.setattr("extract.forecast.MEASURED", 5)
    compiled, stop = StandIns(batch_size=5), threading.Event()
    extraction.extract(work.images, work.backbones, work.options, compiled, make_console(), stop)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("forecast: ")]
    assert int(line.split()[1]) < 20


def test_a_dry_run_says_what_would_be_done_and_leaves_everything_as_it_was(tmp_path, own_model, monkeypatch):
    monkeypatch.setattr(extraction, "MEASURED", 6)
    data, cache = tmp_path / "data", tmp_path / "cache"
    write_images(data / "train", 20)
    (data / "train" / "a000.png").write_bytes(b"broken")
    command = ["run", str(data), "--backbone", f"own={own_model}", "--features", "last", "--cache", str(cache)]
    done = CliRunner().invoke(app, [*command, "--dry-run"])
    assert done.exit_code == 3, done.output
    said = " ".join(done.output.split())
    assert "forecast: 20 images left at " in said
    assert "takes 320 B more" in said  # 4 features of float32
    assert "dry run: 6 images tried, of which 1 could not be read (first: train/a000.png: " in said
    assert said.endswith(f"{cache} is as it was.")
    assert not cache.exists()
    refused = CliRunner().invoke(app, [*command, "--dry-run", "--cluster", "ray"])
    assert refused.exit_code == 2
    assert "--dry-run measures this machine alone" in refused.stderr


def test_a_dry_run_of_a_shard_without_images_says_so(tmp_path, own_model):
    write_images(tmp_path / "data" / "train", 3)
    command = ["run", str(tmp_path / "data"), "--backbone", f"own={own_model}", "--features", "last"]
    done = CliRunner().invoke(app, [*command, "--cache", str(tmp_path / "cache"), "--shard", "2/2", "--dry-run"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "shard 2/2: 0 of these images. Fewer shards would do: images are dealt out 64 at a time" in said
    assert said.endswith(f"dry run: 0 images tried. {tmp_path / 'cache'} is as it was.")
