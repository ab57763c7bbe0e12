"""Run as a process of its own, to be killed: an extraction, or a shard, with stand-ins that take their time."""

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import extract.pipeline
from tests.extract.stand_ins import StandIns, backbone, run, run_shard

if __name__ == "__main__":
    data, cache, seconds, part_rows = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    extract.pipeline.PART_ROWS = part_rows
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("running", flush=True)
    backbones = backbone("a"), backbone("b", 30)
    how: dict[str, Any] = {"compiled": StandIns(4, seconds), "stop": stop}
    if sys.argv[5:]:
        report = run_shard(data, cache, sys.argv[5], *backbones, **how)
    else:
        report = run(data, cache, *backbones, **how)
    print(report.rows, flush=True)
