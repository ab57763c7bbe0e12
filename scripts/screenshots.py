"""Take the pictures of the README from a finished run and a map: `scripts/screenshots.py RUN MAP`; needs chromium."""

import io
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # run as a file, this folder is on the path, not its parent

from features.common.errors import InputError
from features.common.text import size

#: Size of the window, in pixels.
_WINDOW = {"width": 1200, "height": 760}
#: Colours of a picture: pages have few, and a palette takes a third of the bytes.
_COLOURS = 128
#: By the name of each picture, which page it is of, and the section that is brought to the top of the window.
_SHOTS = {"report": ("report", None), "training": ("report", "#curves"), "map": ("map", None)}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def shoot(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run with its report.html, heads among it.")],
    page: Annotated[Path, typer.Argument(metavar="MAP", help="The page that features map wrote.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the pictures.")] = Path("docs/images"),
) -> None:
    """Write report.png, training.png and map.png."""
    try:
        _write(run, page, out)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _write(run: Path, page: Path, out: Path) -> None:
    """Write all pictures; an `InputError` says what is missing."""
    pages = {"report": run / "report.html", "map": page}
    for path in pages.values():
        if not path.is_file():
            raise InputError(f"{path} is missing. Make it by: classify report RUN, features map CACHE.")
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("chromium is not on PATH. Debian: apt-get install chromium.")
    out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, (of_page, section) in _SHOTS.items():
            path = out / f"{name}.png"
            _shoot(browser, pages[of_page], section, path)
            typer.echo(f"{path}: {size(path.stat().st_size)}")
        browser.close()


def _shoot(browser: Browser, page: Path, section: str | None, path: Path) -> None:
    """Write what a window shows of a page, from a section on."""
    window = browser.new_page(viewport=_WINDOW, color_scheme="light")  # type: ignore[arg-type]
    window.goto(page.resolve().as_uri())
    if section:
        window.locator(section).evaluate("section => section.scrollIntoView()")
    window.wait_for_timeout(500)  # until the map is drawn
    image = Image.open(io.BytesIO(window.screenshot()))
    image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    window.close()


if __name__ == "__main__":
    app()
