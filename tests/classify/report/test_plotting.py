"""A figure becomes markup that can stand in any page, and a PNG beside it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from PIL import Image

from classify.report.data import draw_prevalence
from classify.report.plotting import FIRST, INK, end_at_one, house_style, new_figure, to_picture

STYLE = Path("classify/report/template/page.css")


def draw(tmp_path, name="a", label="epidural"):
    with house_style():
        figure = draw_prevalence([label, "other"], {"train": np.array([0.1, 0.5]), "test": np.array([0.2, 0.3])})
        return to_picture(figure, name, f'bars of "{label}" <b>', "caption", tmp_path)


def test_markup_has_words_a_name_and_the_pages_colours_only(tmp_path):
    svg = str(draw(tmp_path).svg)
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    assert (root.get("role"), root.get("aria-label")) == ("img", 'bars of "epidural" <b>')
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"epidural", "other", "10.0", "50.0", "train", "test"} <= set(words)
    assert "<metadata" not in svg
    assert "<style" not in svg
    assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000", "#ffffff"}
    assert "var(--first)" in svg


def test_labels_are_words_whatever_they_hold(tmp_path):
    svg = str(draw(tmp_path, label="a$b$ <script>x</script> &").svg)
    assert "<script" not in svg
    assert "a$b$ &lt;script&gt;x&lt;/script&gt; &amp;" in svg


def test_two_figures_of_a_page_share_no_id(tmp_path):
    of_figures = [set(re.findall(r'\bid="([^"]+)"', str(draw(tmp_path, name).svg))) for name in ("a", "b")]
    hashed = [{name for name in names if re.fullmatch(r"[a-z][0-9a-f]{8,}", name)} for names in of_figures]
    assert hashed[0]
    assert hashed[0] & hashed[1] == set()


def test_the_png_has_the_light_colours_and_the_same_markup_comes_again(tmp_path):
    first, again = draw(tmp_path), draw(tmp_path)
    assert first == again
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).reshape(-1, 3)
    for colour in (FIRST, "#ffffff"):
        assert (pixels == [int(colour[at : at + 2], 16) for at in (1, 3, 5)]).all(axis=1).sum() > 1000


def test_the_house_style_ends_with_its_block():
    before = dict(mpl.rcParams)
    with house_style():
        assert mpl.rcParams["text.color"] == INK
        new_figure()
    assert dict(mpl.rcParams) == before


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_every_colour_of_words_has_enough_contrast_light_dark_and_on_paper():
    schemes = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)
    assert len(schemes) == 3
    for scheme in schemes:
        colours = {k: v if len(v) == 7 else f"#{v[1] * 2}{v[2] * 2}{v[3] * 2}"
                   for k, v in re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", scheme)}  # fmt: skip
        for ink in ("ink", "muted", "first", "second", "good", "bad"):
            for paper in ("paper", "panel", "warn-paper"):
                light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def test_an_axis_of_shares_ends_at_one_and_cuts_nothing_there():
    _, axes = new_figure()
    (line,) = axes.plot([0.4, 1.0], [0.2, 0.9], "o")
    assert axes.get_xlim()[1] > 1
    end_at_one(axes, x=True)
    end_at_one(axes)
    assert axes.get_xlim()[1] == 1
    assert 0.9 < axes.get_ylim()[1] < 1  # it ended before
    assert not line.get_clip_on()
