"""Windows: what `--window` may say, and the grey levels that it makes, by exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from extract.scans.levels import grey_levels_in, show
from extract.scans.windows import WINDOWS, Window, parse_windows, window_words
from features.common.errors import InputError


def exact_level(value: Fraction, window: Window) -> int:
    """The grey level of a value, in fractions: PS3.3 C.11.2.1.3.2, rounded half to even."""
    low = Fraction(window.centre) - Fraction(window.width) / 2
    share = min(max((value - low) / Fraction(window.width), Fraction(0)), Fraction(1))
    return round(share * 255)


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_levels_of_all_hu_equal_exact_fractions(window):
    hu = np.arange(-1024, 3072)
    assert grey_levels_in(window, hu).tolist() == [exact_level(Fraction(int(value)), window) for value in hu]


def test_the_table_is_the_one_that_radiologists_use():
    assert {name: (window.centre, window.width) for name, window in WINDOWS.items()} == {
        "brain": (40, 80),
        "subdural": (80, 200),
        "bone": (600, 2800),
        "stroke": (40, 40),
    }


@given(st.integers(-2000, 4000), st.integers(1, 5000), st.integers(-3000, 5000))
def test_levels_of_any_window_are_within_rounding_of_exact_fractions_and_rise(centre, width, value):
    window = Window(centre, width)
    level = int(grey_levels_in(window, np.array([value]))[0])
    assert abs(level - exact_level(Fraction(value), window)) <= 1
    assert level <= int(grey_levels_in(window, np.array([value + 1]))[0])


def test_what_is_not_a_number_is_black_and_infinity_is_at_the_ends():
    values = np.array([np.nan, -np.inf, np.inf, 40.0])
    assert grey_levels_in(WINDOWS["brain"], values).tolist() == [0, 0, 255, 128]


def test_three_windows_are_the_channels_in_their_order():
    hu = np.array([[0, 50], [100, 1000]])
    levels = show(parse_windows("brain,subdural,bone"), hu)
    assert levels.shape == (2, 2, 3)
    for channel, name in enumerate(("brain", "subdural", "bone")):
        assert (levels[..., channel] == grey_levels_in(WINDOWS[name], hu)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("brain", "brain"),
        (" Brain , SUBDURAL,bone", "brain,subdural,bone"),
        ("40/80", "40/80"),
        ("40.0/80", "40/80"),
        ("-600/1500.5", "-600/1500.5"),
        ("brain,80/200,bone", "brain,80/200,bone"),
        ("file", "file"),
    ],
)
def test_windows_are_read_and_written_in_one_spelling(text, words):
    assert window_words(parse_windows(text)) == words
    assert parse_windows(words) == parse_windows(text)


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_windows_by_numbers_come_back(centre, width):
    (window,) = parse_windows(f"{centre}/{width}")
    assert parse_windows(window_words((window,))) == (window,) == (Window(centre, width),)


@pytest.mark.parametrize(
    "text",
    ["", "lung", "40", "40/", "/80", "40/0", "40/-80", "nan/80", "40/inf", "brain,bone", "file,brain,bone", "1/2/3"],
)
def test_other_values_are_refused_with_the_choices(text):
    with pytest.raises(InputError, match="--window"):
        parse_windows(text)
