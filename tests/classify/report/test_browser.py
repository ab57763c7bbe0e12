"""The page in a real browser: it fetches nothing, what is moved, sorted or filtered is right, a phone can show it."""

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Dialog, Page
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from classify.report.page import write_report
from classify.report.run_files import RunFiles
from tests.classify.report.conftest import HOSTILE, HOSTILE_GROUP, write_pictures
from tests.classify.toy import LABELS, reseal


def open_page(browser: Browser, run: Any, **options: Any) -> tuple[Page, list[str], list[str]]:
    """Open the report of a run; return what it asks for and complains of as well, now and later."""
    page = browser.new_page(**options)
    page.set_default_timeout(20_000)
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def refuse(dialog: Dialog) -> None:
        complaints.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    page.goto((run / "report.html").as_uri())
    return page, requests, complaints


@pytest.fixture
def page(browser, reported) -> Iterator[Page]:
    """The page; whatever a test does with it must ask for nothing and raise no error."""
    page, requests, complaints = open_page(browser, reported)
    yield page
    page.close()
    assert [url for url in requests if not url.startswith("data:")] == [(reported / "report.html").as_uri()]
    assert complaints == []


def test_opens_from_disk_with_every_picture_and_no_request(page, reported):
    assert page.locator("h1").inner_text() == "toy"
    broken = page.evaluate(
        "[...document.images].filter(i => i.offsetParent && !(i.complete && i.naturalWidth)).map(i => i.outerHTML)"
    )
    assert broken == []
    assert page.evaluate("document.images.length") > 100


def test_an_id_that_is_markup_is_shown_as_text_and_runs_nothing(page):
    page.select_option("#filter-label", "")
    card = page.locator(".card", has_text=HOSTILE).first
    assert card.locator(".id").first.inner_text() == HOSTILE
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("main script").count() == 0
    assert HOSTILE_GROUP in page.evaluate("document.querySelector('#gallery').textContent")


def test_the_pages_own_policy_refuses_any_other_script(browser, reported):
    page, _, complaints = open_page(browser, reported)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.taken = 1\">')")
    page.evaluate("fetch('https://example.org/').catch(() => 0)")
    page.wait_for_timeout(200)
    assert page.evaluate("window.taken") is None
    assert sum("Content Security Policy" in complaint for complaint in complaints) >= 2
    page.close()


def test_the_leaderboard_sorts_by_any_column_both_ways(page, reported):
    metrics = pd.read_csv(reported / "metrics.csv").set_index(["model", "split", "label", "metric"])["value"]

    def shown(table: str = "#leaderboard") -> list[str]:
        names = page.locator(f"{table} tbody th").all_inner_texts()
        return [name.split()[0] for name in names]

    def expected(split: str, label: str, metric: str, ascending: bool) -> list[float]:
        values = metrics.xs((split, label, metric), level=("split", "label", "metric"))
        return values.sort_values(ascending=ascending).tolist()

    for table, heading, key, first in (
        ("#leaderboard", "AUC, test", ("test", "macro", "roc_auc"), False),
        ("#leaderboard", "log loss", ("oof", "macro", "log_loss"), True),
        ("#by-label", "subarachnoid", ("oof", "subarachnoid", "roc_auc"), False),
    ):
        button = page.locator(table).get_by_role("button", name=heading, exact=True)
        for ascending in (first, not first):
            button.press("Enter")
            values = [metrics[(model, *key)] for model in shown(table)]
            assert values == expected(*key, ascending)
            state = "ascending" if ascending else "descending"
            assert page.locator(f"{table} th[aria-sort={state}]").inner_text() == heading
            assert page.locator(f"{table} th[aria-sort]").count() == 1
            assert page.locator("#sorted").inner_text() == f"sorted by {heading}, {state}"
    page.locator("#leaderboard").get_by_role("button", name="model", exact=True).click()
    assert shown() == sorted(shown(), key=str.lower)


def test_the_leaderboard_fits_a_screen_of_1200_pixels_whatever_the_backbones_are_called(browser, reported):
    page, _, _ = open_page(browser, reported, viewport={"width": 1200, "height": 900})
    page.evaluate(
        """for (const name of document.querySelectorAll('#leaderboard tbody th'))
        name.firstChild.textContent = name.firstChild.textContent.replace(/alpha|beta/, 'efficientnet_lite0')"""
    )
    box = "document.querySelector('#leaderboard').parentElement"
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == 1200
    page.close()


def test_the_labels_at_a_glance_fit_a_screen_of_1200_pixels_where_many_are_not_known(browser, reported):
    page, _, _ = open_page(browser, reported, viewport={"width": 1200, "height": 900})
    page.evaluate(
        """for (const row of document.querySelectorAll('#glance tbody tr')) {
          row.querySelector('a').textContent = 'Intraparenchymal haemorrhage, acute';
          for (const place of [1, 2]) row.children[place].textContent = '1,234 of 12,345 known';
        }"""
    )
    box = "document.querySelector('#glance table').parentElement"
    assert page.evaluate(f"{box}.querySelectorAll('thead th').length") == 8
    assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
    page.close()


def counts_of(article: Any) -> tuple[int, ...]:
    return tuple(int(article.locator(f".{name} b").inner_text().replace(",", "")) for name in ("tn", "fp", "fn", "tp"))


@pytest.mark.parametrize("label", range(len(LABELS)))
def test_the_slider_moves_the_matrix_and_its_measures_as_scikit_learn_counts_them(page, reported, label):
    run = RunFiles.read(reported)
    article = page.locator("article.label").nth(label)
    slider, value = article.locator(".slider"), article.locator("input.value")

    def check(split: str, threshold: float) -> None:
        truth = run.splits[split].labels[:, label]
        decided = run.splits[split].probabilities[:, label].astype(float) >= threshold
        assert counts_of(article) == tuple(confusion_matrix(truth, decided, labels=[0, 1]).ravel())
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = {
                "sensitivity": recall_score(truth, decided),
                "specificity": recall_score(truth, decided, pos_label=0),
                "f1": f1_score(truth, decided),
                "accuracy": accuracy_score(truth, decided),
            } | ({"ppv": precision_score(truth, decided)} if decided.any() else {})
        for name, measure in expected.items():
            shown = article.locator(f"dd.{name}").inner_text()
            assert float(shown) == pytest.approx(measure, abs=0.000501)  # three decimals; ties are rounded up
        said = article.locator(".said").inner_text()
        assert said.startswith(f"sensitivity {article.locator('dd.sensitivity').inner_text()}, specificity ")

    own = float(run.cuts[label])
    check("train", own)
    assert float(value.input_value()) == pytest.approx(own, abs=1e-6)
    for threshold in (0.2, 0.731, 0.0, 1.0):
        value.fill(str(threshold))
        value.press("Enter")
        check("train", threshold)
    article.get_by_role("button", name="0.5", exact=True).click()
    slider.press("ArrowRight")
    assert value.input_value() == "0.501" or abs(own - 0.5) < 0.001
    assert slider.get_attribute("aria-valuetext") == value.input_value()
    check("train", 0.501)
    article.locator("select.split").select_option("1")
    check("test", 0.501)
    article.get_by_role("button", name="The run's").click()
    check("test", own)
    assert page.locator("article.label").nth((label + 1) % 3).locator("select.split").input_value() == "0"


def test_the_gallery_filters_by_label_outcome_and_split(page, reported):
    gallery = pd.read_csv(reported / "gallery.csv")

    def check(label: str, outcome: str, split: str) -> None:
        wanted = gallery
        for column, chosen in (("label", label), ("outcome", outcome), ("split", split)):
            wanted = wanted[wanted[column] == chosen] if chosen else wanted
        cards = page.locator(".card:visible")
        assert cards.locator("p.id").all_inner_texts() == wanted["ID"].tolist()
        assert page.locator("#shown").inner_text() == f"{len(wanted)} of {len(gallery)} entries"

    check(LABELS[0], "", "train")
    page.select_option("#filter-outcome", label="false negative")
    check(LABELS[0], "false_negative", "train")
    page.select_option("#filter-label", label=LABELS[2])
    page.select_option("#filter-split", "test")
    check(LABELS[2], "false_negative", "test")
    page.select_option("#filter-outcome", "")
    page.select_option("#filter-label", "")
    page.select_option("#filter-split", "")
    check("", "", "")


def test_heat_maps_are_shown_one_by_one_and_all_at_once(page, reported):
    pictures = page.locator(".card:visible button.picture")
    shown = page.locator(".card:visible img.heat:visible")
    gallery = pd.read_csv(reported / "gallery.csv")
    first = gallery[(gallery["split"] == "train") & (gallery["label"] == LABELS[0])]
    files = pd.read_csv(reported / "cam" / "images.csv", dtype=str).set_index(["split", "ID"])["file"]
    expected = [files.get(("train", image_id)) for image_id in first["ID"]]
    assert pictures.count() == sum(isinstance(file, str) for file in expected) < len(first)  # one image has no picture
    assert shown.count() == 0
    pictures.nth(1).press("Space")
    assert (shown.count(), pictures.nth(1).get_attribute("aria-pressed")) == (1, "true")
    pictures.nth(1).click()
    assert (shown.count(), pictures.nth(1).get_attribute("aria-pressed")) == (0, "false")
    page.check("#all-heat")
    assert shown.count() == pictures.count()
    # The heat of each label is its own: the lower half has the level that the label's file has.
    for label in range(3):
        page.select_option("#filter-label", str(label))
        heat = page.locator(".card:visible img.heat").first
        alpha = heat.evaluate(
            """image => { const canvas = Object.assign(document.createElement("canvas"), {width: 32, height: 40});
            const context = canvas.getContext("2d"); context.drawImage(image, 0, 0);
            return context.getImageData(16, 35, 1, 1).data[3]; }"""
        )
        assert 10 * label - 3 <= alpha <= 10 * label + 9
    page.uncheck("#all-heat")
    assert shown.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_downwards_only(browser, reported, scheme):
    options = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "has_touch": True}
    page, _, complaints = open_page(browser, reported, **options)
    page.select_option("#filter-label", "")
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.evaluate("window.scrollTo(200, 500)")
    assert page.evaluate("[window.scrollX, window.scrollY]") == [0, 500]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 23, 29)"}[scheme]
    assert complaints == []
    page.close()


@pytest.fixture(scope="module")
def long_labels(plain_run, tmp_path_factory) -> Path:
    """The report of a run whose labels are long words without blanks, with thumbnails that have no heat."""
    out = shutil.copytree(plain_run, tmp_path_factory.mktemp("long") / "run")
    for path in out.glob("*.[cj]s*"):
        text = path.read_text()
        for label, length in zip(LABELS, (45, 120, 300), strict=True):
            text = text.replace(label, (label * 30)[:length])
        path.write_text(text)
    reseal(out)
    write_pictures(out)
    shutil.rmtree(out / "cam" / "heat")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of a figure whose words leave no room
        write_report(out)
    return out


@pytest.mark.parametrize("pictures", [True, False])
def test_labels_that_are_long_words_make_no_page_scroll_sideways(browser, long_labels, tmp_path, pictures):
    out = long_labels
    if not pictures:
        out = shutil.copytree(long_labels, tmp_path / "run", ignore=shutil.ignore_patterns("cam"))
        write_report(out)
    page, _, complaints = open_page(browser, out, viewport={"width": 390, "height": 844})
    page.select_option("#filter-label", "")
    page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert complaints == []
    page.close()


def test_thumbnails_without_heat_are_pictures_and_no_buttons_to_press(browser, long_labels):
    page, _, complaints = open_page(browser, long_labels)
    pictures = page.locator(".card:visible .picture")
    assert pictures.count() > 5
    assert page.locator("#all-heat").count() == 0
    assert page.locator("button.picture").count() == 0
    assert pictures.nth(0).locator("img").evaluate("image => image.naturalWidth") == 32
    assert page.locator("img[alt^='Image ']").count() > 5
    assert "heat map" not in page.locator("#gallery").inner_text().lower()
    assert complaints == []
    page.close()


def test_everything_can_be_named_and_reached_without_eyes_or_mouse(page):
    nameless = page.evaluate(
        """[...document.querySelectorAll("input, select, button, svg[role], img, [role=region]")].filter(e =>
            !(e.labels?.length || e.getAttribute("aria-label") || e.hasAttribute("aria-labelledby")
              || e.tagName === "IMG" && e.hasAttribute("alt") || e.tagName === "BUTTON" && e.textContent.trim()))
           .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(link => link.hash.slice(1))")
    assert set(targets) <= set(ids)
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1  # no level of heading is skipped
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"


def test_on_paper_everything_is_unfolded_and_nothing_is_cut(browser, reported, tmp_path):
    page, _, _ = open_page(browser, reported)
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert page.evaluate("[...document.querySelectorAll('details')].every(details => details.open)")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins, in CSS pixels
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    page.close()


def test_counts_and_not_images_are_embedded(reported):
    page = (reported / "report.html").read_text()
    embedded = json.loads(page.split('id="embedded">')[1].split("</script>")[0])
    assert set(embedded) == {"labels", "thumbnails", "heat"}
    assert set(embedded["labels"][0]["splits"][0]) == {"title", "positives", "negatives", "unknown", "tp", "fp"}
