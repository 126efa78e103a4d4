"""Numbers and names from outside."""

import pytest

from ltxrt.engines.parsing import text


@pytest.mark.parametrize(
    ("given", "value"), [("7", 7), (" -3 ", -3), ("+08", 8), (str(2**64 - 1), 2**64 - 1)]
)
def test_whole_numbers(given, value):
    assert text.whole(given) == value


@pytest.mark.parametrize(
    "given", ["", "x", "1.0", "1_0", "३", "９", "0x1", "1 0", "9" * 21, "9" * 5000, "0" * 5000 + "1"]
)
def test_what_is_no_whole_number(given):
    with pytest.raises(ValueError) as error:
        text.whole(given)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("given", "value"), [("1", 1.0), (" .5", 0.5), ("-2.", -2.0), ("1e-3", 1e-3), ("inf", float("inf"))]
)
def test_numbers(given, value):
    assert text.number(given) == value


def test_a_number_of_many_digits_is_one_or_infinite():
    assert text.number("9" * 400) == float("inf")
    assert text.number("0." + "1" * 400) == pytest.approx(1 / 9)


@pytest.mark.parametrize("given", ["", ".", "x", "1_0.5", "३.५", "1e", "0x1p3", "infinity", "1,5"])
def test_what_is_no_number(given):
    with pytest.raises(ValueError, match="is not a decimal number"):
        text.number(given)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("fog", "'fog'"),
        ("it's", '"it\'s"'),
        ("größe 霧", "'größe 霧'"),
        ("\x1b[31m\r\n", r"'\x1b[31m\r\n'"),
        ("\udcff\ud800\u202e", r"'\xff\ud800\u202e'"),
        ("x" * 100, "'" + "x" * 80 + "'…"),
        (12, "12"),
        (-0.5, "-0.5"),
        (None, "None"),
    ],
)
def test_what_was_given_is_quoted_in_printable_characters(given, shown):
    assert text.quoted(given) == shown


def test_a_number_that_python_refuses_to_write_is_described():
    assert text.quoted(10**5000) == text.quoted(-(10**80)) == "a number of more than 80 digits"


def test_long_values_lose_their_middle():
    shown = text.quoted(list(range(1000)))
    assert len(shown) <= 80 and shown.startswith("[0, 1, ") and shown.endswith("999]") and "…" in shown
