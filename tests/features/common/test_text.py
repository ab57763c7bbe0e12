"""Lists cut short, pages, and the console that commands print on."""

import jinja2
import pytest
from rich.console import Console
from rich.table import Table

from features.common import text
from features.common.text import first_few, make_console, render, visible


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b", "c"], "a, b, c"),
        (["a", "b", "c", "d"], "a, b, c and 1 more"),
        ([*"abc", *"x" * 1204], "a, b, c and 1,204 more"),
    ],
)
def test_a_list_says_how_much_of_it_is_not_shown(names, says):
    assert first_few(names, 3) == says


def test_a_list_may_have_a_separator_of_its_own():
    assert first_few(["a (line 2)", "b", "c"], 2, "; ") == "a (line 2); b and 1 more"


def test_a_console_prints_what_it_is_given_and_breaks_no_line_off_a_terminal(capsys):
    long = "[red] :smile: 12 " * 40
    table = Table("name", box=None, show_header=False)
    table.add_row(long)
    make_console().print(long)
    make_console(stderr=True).print(table)
    printed = capsys.readouterr()
    assert printed.out == f"{long}\n"
    assert printed.err.strip() == long.strip()
    assert printed.err.count("\n") == 1


def test_a_page_shows_values_as_text_and_refuses_a_name_without_one(tmp_path):
    template = tmp_path / "page.html"
    template.write_text("<p>{{ name|twice }}</p>")
    assert render(template, {"name": "<b>"}, {"twice": lambda text: text * 2}) == "<p>&lt;b&gt;&lt;b&gt;</p>"
    with pytest.raises(jinja2.UndefinedError, match="name"):
        render(template, {}, {"twice": str})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Köpfe 脳 'a'", "Köpfe 脳 'a'"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x1b[2J\x07\x9b", "\\x1b[2J\\x07\\x9b"),
        ("a\u202egnp", "a\\u202egnp"),
        ("\udcff", "\\udcff"),
        ("[red]", "[red]"),
    ],
)
def test_what_a_terminal_would_act_on_is_shown_escaped_everywhere(name, shown, capsys):
    assert visible(name) == shown
    assert first_few([name]) == shown
    table = Table(name.replace("\n", " ").replace("\t", " "), box=None)
    table.add_row(name.replace("\n", " ").replace("\t", " "))
    make_console().print(table)
    make_console().print(f"{name}|")
    kept = shown.replace("\\n", "\n").replace("\\t", "\t").expandtabs()
    printed = capsys.readouterr().out
    assert printed.endswith(f"{kept}|\n")
    assert all(line.split() == kept.split() for line in printed.splitlines()[:2])


def test_a_log_gets_a_line_every_half_minute_with_the_time_left(monkeypatch, capsys):
    moment = [100.0]
    monkeypatch.setattr(text.time, "monotonic", lambda: moment[0])
    with text.progress_bar("fitting", 1_200) as advance:
        for _ in range(1_200):
            moment[0] += 0.125
            advance()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "fitting: 240 of 1,200 steps, 2 min 00 s left",
        "fitting: 480 of 1,200 steps, 1 min 30 s left",
        "fitting: 720 of 1,200 steps, 1 min 00 s left",
        "fitting: 960 of 1,200 steps, 30 s left",
    ]


@pytest.mark.parametrize(("terminal", "jupyter", "widgets", "moves"), [
    (True, False, False, True),
    (False, True, True, True),
    (False, True, False, False),
    (False, False, True, False),
])  # fmt: skip
def test_a_bar_moves_on_a_terminal_and_in_a_notebook_with_widgets(monkeypatch, terminal, jupyter, widgets, moves):
    monkeypatch.setattr(text, "find_spec", lambda name: name if widgets else None)
    assert text.shows_bars(Console(force_terminal=terminal, force_jupyter=jupyter)) == moves
