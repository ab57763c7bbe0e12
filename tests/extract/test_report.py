"""extract.report: rate and time left are those of the images, whatever was spent before the first."""

import io

import pytest
from rich.console import Console

import extract.report
from extract.report import show_progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets: clock[0] is the time."""
    moment = [100.0]
    monkeypatch.setattr(extract.report.time, "monotonic", lambda: moment[0])
    return moment


def test_a_log_gets_a_line_every_half_minute_with_rate_time_left_and_waiting(clock):
    output = io.StringIO()
    with show_progress(Console(file=output, width=120), 1000) as advance:
        clock[0] += 60  # compiling
        for _ in range(40):
            advance(5.0, "device waits 10%")
            clock[0] += 1
    lines = output.getvalue().splitlines()
    assert lines[0] == "10/1000 images  5.0 images/s  3 min 18 s left  device waits 10%"
    assert lines[1] == "160/1000 images  5.0 images/s  2 min 48 s left  device waits 10%"
    assert len(lines) == 2


def test_the_rate_is_that_of_the_last_seconds(clock):
    output = io.StringIO()
    with show_progress(Console(file=output, width=120), 10_000) as advance:
        for second in range(80):
            advance(1.0 if second < 40 else 50.0)
            clock[0] += 1
    assert "  50.0 images/s  " in output.getvalue().splitlines()[-1]
