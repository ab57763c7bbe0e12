"""`python -m features inspect`: one line per file, every column, and what is damaged."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from features.__main__ import app
from features.common.text import age, duration, size
from features.store.images_table import Rejection, replace_rejections
from tests.features.store.caches import RECIPE, digests_of, rows_of, write_cache, write_rows


def inspect(cache: Path) -> Result:
    return CliRunner().invoke(app, ["inspect", str(cache)])


def test_every_column_has_its_value(tmp_path):
    views = replace(RECIPE, backbone="views", views=("identity", "flip"), weights="random", storage="float16")
    half = write_rows(tmp_path, rows_of(digests_of("abc"), 2, 7, "float16"), "train", views)
    full = write_cache(tmp_path, [str(number) for number in range(1234)], "test", width=9)
    result = inspect(tmp_path)
    assert result.exit_code == 0
    assert result.stderr == ""
    header, *lines = [line.split() for line in result.stdout.splitlines()]
    assert " ".join(header) == "split backbone rows views width dtype size weights fingerprint age"
    assert [" ".join(line[:-2]) for line in lines] == [
        f"test net 1,234 1 9 float32 {size(full.stat().st_size)} imagenet, float32 {RECIPE.fingerprint[:8]}",
        f"train views 3 2 7 float16 {size(half.stat().st_size)} random, float32 {views.fingerprint[:8]}",
    ]
    for line in lines:
        assert line[-1] == "s"
        assert 0 <= int(line[-2]) < 60


def test_long_weights_and_brackets_are_printed_whole_on_one_line(tmp_path):
    weights = "/weights/[/red]" + "long/" * 60 + "file.h5"
    write_rows(tmp_path, rows_of(digests_of("ab")), recipe=replace(RECIPE, backbone="net[b]", weights=weights))
    result = inspect(tmp_path)
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()[1:]
    assert f" {weights}, float32 " in line
    assert " net[b] " in line


def test_a_damaged_file_has_its_line_and_the_exit_code_is_2(tmp_path):
    write_cache(tmp_path, "ab", backbone="whole")
    broken = write_cache(tmp_path, "ab", backbone="broken")
    broken.write_bytes(b"x" * 1500)
    (broken.parent / "gone.h5").symlink_to(tmp_path / "nowhere")
    result = inspect(tmp_path)
    assert result.exit_code == 2
    rows = {line.split()[1]: line.split() for line in result.stdout.splitlines()[1:]}
    assert rows["broken"] == ["train", "broken", "?", "?", "?", "?", "1.5", "kB", "?", "damaged", "?"]
    assert rows["gone"] == ["train", "gone", "?", "?", "?", "?", "?", "?", "unknown", "?"]
    assert rows["whole"][2] == "2"
    assert f"error: {broken} is damaged (" in result.stderr
    assert f"Run: .venv/bin/python -m features verify {tmp_path}" in result.stderr


def test_no_folder_says_what_to_run(tmp_path):
    result = inspect(tmp_path / "none")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {tmp_path}/none is not there: no features have been extracted. "
        f"Run: scripts/extract.sh DATA --cache {tmp_path}/none\n"
    )


def test_an_empty_folder_says_what_to_run(tmp_path):
    result = inspect(tmp_path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {tmp_path} holds no cache file ({{split}}/{{backbone}}.h5). "
        f"Run: scripts/extract.sh DATA --cache {tmp_path}\n"
    )


def test_rejected_images_are_counted(tmp_path):
    write_cache(tmp_path, "ab")
    replace_rejections(tmp_path, ["train"], [Rejection("c", "train/c.png", "empty", "")])
    assert inspect(tmp_path).stdout.endswith(f"1 image could not be read: {tmp_path / 'rejected.csv'}\n")


SIZES = {
    0: "0 B",
    999: "999 B",
    1000: "1.0 kB",
    1500: "1.5 kB",
    999_949: "999.9 kB",
    999_999: "1.0 MB",
    96_500_000: "96.5 MB",
    2e9: "2.0 GB",
    3e12: "3.0 TB",
    5e15: "5000.0 TB",
}
DURATIONS = {
    0.44: "0.4 s",
    9.96: "10 s",
    59.6: "1 min 00 s",
    185: "3 min 05 s",
    3599.7: "1 h 00 min",
    7620: "2 h 07 min",
}
AGES = {
    timedelta(minutes=5): "5 min",
    timedelta(hours=3): "3 h",
    timedelta(days=12): "12 d",
    timedelta(days=-1): "0 s",
}


@pytest.mark.parametrize("count", SIZES)
def test_sizes(count):
    assert size(count) == SIZES[count]


@pytest.mark.parametrize("seconds", DURATIONS)
def test_durations(seconds):
    assert duration(seconds) == DURATIONS[seconds]


@pytest.mark.parametrize("ago", AGES)
def test_ages(ago):
    assert age((datetime.now(UTC) - ago).isoformat()) == AGES[ago]


@pytest.mark.parametrize("moment", ["-", "", "2026-01-01T00:00:00"])
def test_what_is_no_moment_has_no_age(moment):
    assert age(moment) == "?"


def test_a_narrow_terminal_cuts_nothing(tmp_path, monkeypatch):
    write_cache(tmp_path, ["a"])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    output = CliRunner().invoke(app, ["inspect", str(tmp_path)]).output
    assert "…" not in output
