"""`python -m extract convert`: PNG of scans, with the same ids and nothing of the headers."""

import cv2
import numpy as np
import pytest

from extract.options import ConvertOptions
from extract.pipeline import Images
from extract.scans import convert as module
from extract.scans.convert import convert
from extract.scans.levels import show
from extract.scans.windows import parse_windows
from features.common.errors import InputError
from tests.extract.scans.written import SECRETS, STUDY, dataset, file_bytes, slice_of_hu


@pytest.mark.parametrize("window", ["brain", "brain,subdural,bone"])
def test_scans_become_png_of_the_same_ids_without_their_headers(tmp_path, monkeypatch, capsys, window):
    data = tmp_path / "data"
    (data / "train" / "sub").mkdir(parents=True)
    (data / "train.csv").write_text("ID,bleed\nsub/a,1\nb,0\n")
    encoded = file_bytes(dataset(slice_of_hu()))
    paths = [data / "train" / "sub" / "a.dcm", data / "train" / "b.dcm"]
    paths[0].write_bytes(encoded)
    paths[1].write_bytes(encoded[:-9])
    monkeypatch.setattr(module, "find_images", lambda *arguments: [Images("train", ["sub/a", "b"], paths)])
    out = tmp_path / "out"
    assert convert(ConvertOptions(data=data, out=out, window=window)) == 3
    said = capsys.readouterr().out
    assert "1 images as PNG" in said
    assert "1 images could not be read: b: its pixels are cut off" in said
    assert (out / "train.csv").read_bytes() == (data / "train.csv").read_bytes()
    written = cv2.imread(str(out / "train" / "sub" / "a.png"), cv2.IMREAD_UNCHANGED)
    expected = show(parse_windows(window), slice_of_hu())
    np.testing.assert_array_equal(written if expected.ndim == 2 else written[..., ::-1], expected)
    content = (out / "train" / "sub" / "a.png").read_bytes()
    assert not any(secret.encode() in content or secret in said for secret in (*SECRETS.values(), STUDY))
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        convert(ConvertOptions(data=data, out=out, window=window))
