"""features.common.cluster: what is said where a cluster has nothing for us; what needs Ray is tested with its users."""

import logging

from features.common import cluster
from features.common.cluster import Beginning


class BusyRay:
    """Stands in for Ray with 8 cores, 2 of them free; nothing begins, or all."""

    def __init__(self, begins: bool) -> None:
        self._begins = begins

    def wait(self, tasks, num_returns, timeout):
        return (tasks, []) if self._begins else ([], tasks)

    def cluster_resources(self):
        return {"CPU": 8.0}

    def available_resources(self):
        return {"CPU": 2.0}


def test_a_cluster_that_begins_nothing_is_said_once(monkeypatch, caplog):
    clock = [100.0]
    monkeypatch.setattr(cluster.time, "monotonic", lambda: clock[0])
    waits, begins = Beginning(BusyRay(False), ["task"], "4 cores"), Beginning(BusyRay(True), ["task"], "4 cores")
    with caplog.at_level(logging.WARNING):
        for clock[0] in (101.0, 114.0):
            waits.look()
        assert caplog.messages == []
        for clock[0] in (116.0, 200.0):
            waits.look()
            begins.look()
    assert caplog.messages == [
        "nothing has begun yet: a process of 4 cores is waited for; the cluster has 8, of which 2 are free"
    ]
