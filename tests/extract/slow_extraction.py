"""Run as a process of its own, to be killed: an extraction with stand-ins that take their time."""

import signal
import sys
import threading
from pathlib import Path

import extract.pipeline
from tests.extract.stand_ins import StandIns, backbone, run

if __name__ == "__main__":
    data, cache, seconds, part_rows = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    extract.pipeline.PART_ROWS = part_rows
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("running", flush=True)
    report = run(data, cache, backbone("a"), backbone("b", 30), compiled=StandIns(4, seconds), stop=stop)
    print(report.rows, flush=True)
