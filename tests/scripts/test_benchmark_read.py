"""scripts.benchmark_read: it measures both ways and prints them."""

import re

from scripts.benchmark_read import benchmark_read


def test_reading_is_compared_with_numpys(capsys):
    benchmark_read(rows=200, repeats=1)
    printed = capsys.readouterr().out
    assert "5 backbones of (200, 2,048) float32" in printed
    assert "numpy.fromfile: " in printed
    assert " s, 1.00 times numpy's (1.00 to 1.00)\n" in printed
    ((median, least, most),) = re.findall(r"shuffled: .* ([\d.]+) times numpy's \(([\d.]+) to ([\d.]+)\)", printed)
    assert float(least) <= float(median) <= float(most)
