"""JPEG within DICOM: damage that libjpeg only warns of is refused, and nobody's words on stderr are lost."""

import os
import resource
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid

from extract.images.reading import UnreadableImage
from extract.scans.libjpeg import hearing_damage
from extract.scans.scan import read_scan
from tests import ROOT
from tests.extract.scans.written import dataset, in_syntax, slice_of_hu

WHOLE = in_syntax(dataset(slice_of_hu()), uid.JPEGLosslessSV1)


def damaged(seed: int) -> bytes:
    """The file with three bytes of its pixels changed."""
    random, content = np.random.default_rng(seed), bytearray(WHOLE)
    for place in random.integers(WHOLE.rfind(b"\xff\xda") + 12, len(WHOLE) - 20, 3):
        content[place] ^= int(random.integers(1, 256))
    return bytes(content)


def refusal(encoded: bytes) -> str:
    """Why an image is refused; "" where it is not."""
    try:
        read_scan(encoded, "a", "bone", 1 << 20)
    except UnreadableImage as error:
        return str(error)
    return ""


def test_most_damage_within_lossless_jpeg_is_refused_and_stderr_stays_silent(capfd):
    refusals = [why for seed in range(50) if (why := refusal(damaged(seed)))]
    assert len(refusals) >= 40
    assert all(why.startswith("its pixels are damaged") for why in refusals)
    assert sum("damaged: Corrupt JPEG data: " in why for why in refusals) >= 30
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("words", ["Didn't expect more than one scan", "Improper call to JPEG library in state 202"])
def test_errors_of_libjpeg_stay_silent(words, capfd):
    with hearing_damage() as said:
        os.write(2, f"{words}\nother\n".encode())
    assert (said, capfd.readouterr().err) == ([], "other\n")


def test_what_other_threads_print_meanwhile_is_passed_on_and_each_image_has_its_own_verdict(capfd):
    done = threading.Event()
    printed = []

    def speak():
        while not done.is_set():
            os.write(2, b"warning %d\n" % len(printed))
            printed.append(len(printed))

    speaker = threading.Thread(target=speak)
    speaker.start()
    sound = [seed % 3 > 0 for seed in range(60)]
    refused = {seed for seed in range(0, 60, 3) if refusal(damaged(seed))}
    with ThreadPoolExecutor(4) as threads:
        files = [WHOLE if is_sound else damaged(seed) for seed, is_sound in enumerate(sound)]
        assert {seed for seed, verdict in enumerate(threads.map(refusal, files)) if verdict} == refused
    done.set()
    speaker.join()
    assert refusal(WHOLE) == ""  # passes on what came when stderr was just put back
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(f"warning {number}" for number in printed)


def test_words_that_come_late_are_passed_on_with_the_next_image_or_when_the_process_ends():
    program = (
        "import os, sys; from extract.scans.libjpeg import hearing_damage\n"
        "with hearing_damage(): late = os.dup(2); os.write(late, b'la')\n"  # as a thread that is writing has it
        "os.write(late, b'te\\n')\n"
        "with hearing_damage(): os.write(2, b'soon\\n')\n"
        "os.write(2, b'now\\n'); os.write(late, b'last')\n"
        "if os.fork() == 0: sys.exit()\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=ROOT, check=True)
    assert done.stderr == b"late\nsoon\nnow\nlast"


def test_a_verdict_does_not_depend_on_stderr():
    with_stderr = [refusal(damaged(seed)) for seed in range(20)]
    own = os.dup(2)
    try:
        os.close(2)
        without_stderr = [refusal(damaged(seed)) for seed in range(20)]
    finally:
        os.dup2(own, 2)
        os.close(own)
    assert without_stderr == with_stderr


def test_without_free_descriptors_an_image_is_neither_read_nor_called_damaged():
    assert refusal(WHOLE) == ""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len([*Path("/proc/self/fd").iterdir()])
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, limit[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            refusal(damaged(0))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert len([*Path("/proc/self/fd").iterdir()]) == used
