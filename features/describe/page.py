"""Write a description of a data set as one page, describe.html, that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path

from features.common.files import replacing
from features.common.text import render
from features.describe.description import Description

PAGE = "describe.html"
#: Kinds, such as sizes, that a table of the page shows; lists of images are whole.
KINDS_SHOWN = 200
#: Lists of no more entries than this are unfolded from the start.
ENTRIES_OPEN = 10


def write_page(path: Path, title: str, command: str, splits: Sequence[Description]) -> None:
    """Write the page; whatever ids, labels and groups hold is shown as text.

    Args:
        path: the file to make or replace.
        title: the data set's name.
        command: what made the page.
        splits: what it is about.

    Raises:
        InputError: the file cannot be written.
    """
    values = {"title": title, "command": command, "splits": splits, "shown": KINDS_SHOWN, "shown_open": ENTRIES_OPEN}
    page = render(Path(__file__).with_name("page.html"), values)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
