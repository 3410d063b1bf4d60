"""Numbers that YAML leaves as text, and texts that are none."""

import math

import pytest

from torch_utils.numbers import is_integer, is_number, number


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("-2E5", -2e5), ("+1.5e+2", 150.0), (".5e1", 5.0), ("3.e2", 300.0),
     ("inf", math.inf), ("-inf", -math.inf), ("1e400", math.inf)],
)  # fmt: skip
def test_a_text_that_reads_as_a_number_is_one(text: str, value: float) -> None:
    assert number(text) == value
    assert isinstance(number(text), float)


@pytest.mark.parametrize(
    "text",
    ["", "e3", "1e", "1_0e3", "nan", "16", "0.5", "1e3img", "0x1e3", " 1e3", "1e3\n", "\u0661e3"],
)
def test_other_texts_stay(text: str) -> None:
    assert number(text) == text


def test_what_is_no_text_stays() -> None:
    for value in (None, True, 3, 2.5, [1]):
        assert number(value) is value


@pytest.mark.parametrize("value", [True, "1", None, [1], math.nan * 1j])
def test_what_is_no_number(value: object) -> None:
    assert not is_number(value)
    assert not is_integer(value)


def test_a_whole_number_may_have_bounds_and_a_number_fits_a_float() -> None:
    assert is_integer(3, 3, 4)
    assert not is_integer(5, 3, 4)
    assert not is_integer(3.0)
    assert is_number(3.0)
    assert is_number(math.inf)
    assert not is_number(10**400)
