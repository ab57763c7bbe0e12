"""Pictures stand in the page small, as they are, and not beyond its size."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from classify.report.gallery import SIDE, embed_pictures
from features.common.errors import InputError
from tests.classify.report.conftest import write_pictures


def unpack(uri: str) -> Image.Image:
    kind, text = uri.split(",", 1)
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def write_gallery(run, count):
    rows = "".join(f"train,i{number},a,example,1\n" for number in range(count))
    (run / "gallery.csv").write_text("split,ID,label,outcome,rank\n" + rows)
    write_pictures(run)


def test_thumbnails_keep_their_aspect_and_heat_its_transparency(tmp_path):
    write_gallery(tmp_path, 2)
    Image.fromarray(np.full((600, 300, 3), (250, 20, 20), np.uint8)).save(tmp_path / "cam/thumbnails/00001.jpg")
    pictures = embed_pictures(tmp_path / "cam", [("00000", 0), ("00001", 2), ("00000", 0), ("00007", 0)])
    assert set(pictures.thumbnails) == {"00000", "00001"}
    assert set(pictures.heat) == {"0/00000", "2/00001"}
    assert pictures.left_out == 0
    large = unpack(pictures.thumbnails["00001"])
    assert large.size == (SIDE // 2, SIDE)
    np.testing.assert_allclose(np.asarray(large)[100, 50], (250, 20, 20), atol=6)
    heat = np.asarray(unpack(pictures.heat["2/00001"]))
    assert heat.shape == (40, 32, 4)
    np.testing.assert_allclose(heat[[5, 35], 16, 3], [200, 21], atol=2)


def test_the_page_is_filled_by_the_most_wanted_and_says_how_many_found_no_room(tmp_path):
    write_gallery(tmp_path, 6)
    wanted = [(f"{number:05d}", 0) for number in (3, 1, 0, 2, 4, 5)]
    one = embed_pictures(tmp_path / "cam", wanted[:1])
    room = 2 * (len(one.thumbnails["00003"]) + len(one.heat["0/00003"])) + 50
    pictures = embed_pictures(tmp_path / "cam", wanted, room)
    assert list(pictures.thumbnails) == ["00003", "00001"]
    assert pictures.left_out == 4
    assert sum(map(len, [*pictures.thumbnails.values(), *pictures.heat.values()])) <= room


def test_what_is_no_picture_is_an_error_that_names_it(tmp_path):
    write_gallery(tmp_path, 1)
    (tmp_path / "cam/thumbnails/00000.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"00000\.jpg cannot be read.*extract heat"):
        embed_pictures(tmp_path / "cam", [("00000", 0)])
