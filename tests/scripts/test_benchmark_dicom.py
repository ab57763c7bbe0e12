"""The benchmark of DICOM measures every syntax that it names."""

import re

from scripts.benchmark_dicom import benchmark_dicom


def test_both_ways_are_measured_in_every_syntax(capsys):
    benchmark_dicom(1)
    lines = capsys.readouterr().out.splitlines()[1:]
    names = ("Explicit VR Little Endian", "RLE", "JPEG-LS Lossless", "JPEG 2000", "JPEG Lossless")
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(name)
        assert re.search(
            r"decoder \d+\.\d, ours with HU and window \d+\.\d: \d+\.\d\d times; [\d,]+ images/s by \d+ threads$", line
        )
