"""Fits run at a time as far as the memory has room, and it is said where it has not."""

import logging

import pytest

from classify.crossfit import memory
from classify.models.baselines import BASELINES
from classify.models.heads import HeadSpec


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system whose files a test writes."""
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    return tmp_path


def test_the_least_of_what_system_and_container_have_left_counts(system):
    assert memory.available_memory() is None
    (system / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:  4000 kB\nHugePages_Total: 0\n")
    assert memory.available_memory() == 4000 * 1024
    (system / "memory.current").write_text("3000000\n")
    (system / "memory.stat").write_text("anon 5\ninactive_file 1000000\n")
    for limit, left in (("max", 4000 * 1024), ("5000000", 3_000_000), ("1000000", 0)):
        (system / "memory.max").write_text(f"{limit}\n")
        assert memory.available_memory() == left
    (system / "memory.max").unlink()
    (system / "memory").mkdir()
    (system / "memory" / "memory.limit_in_bytes").write_text("2500000\n")
    (system / "memory" / "memory.usage_in_bytes").write_text("2000000\n")
    (system / "memory" / "memory.stat").write_text("inactive_file 9\ntotal_inactive_file 500000\n")
    assert memory.available_memory() == 1_000_000


def test_jobs_are_as_many_as_the_memory_has_room_for_and_fewer_are_logged(monkeypatch, caplog):
    monkeypatch.setattr(memory, "available_memory", lambda: 8_000_000_000)
    small, large, knn, svm = (
        memory.FitSize(BASELINES[kind].make(), rows, 1000)
        for kind, rows in (("logistic", 10), ("logistic", 10**6), ("knn", 10**6), ("svm", 10**6))
    )
    head = memory.FitSize(HeadSpec(), 10**6, 1000, 3003)
    with caplog.at_level(logging.WARNING):
        assert memory.jobs_in_memory(4, [small]) == 4
        assert not caplog.records
        jobs = [memory.jobs_in_memory(64, [small, one]) for one in (svm, knn, large, head)]
        assert jobs == [1, 1, 1, 3]
        assert "instead of 64: one may take" in caplog.text
        of_disk = [memory.jobs_in_memory(64, [one._replace(on_disk=True)]) for one in (svm, knn, large, head)]
        assert of_disk == [1, 1, 9, 64]
        assert memory.jobs_in_memory(4, [large._replace(rows=10**9)]) == 1
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert memory.jobs_in_memory(64, [large]) == 64
