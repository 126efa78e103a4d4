import os

import pytest

from ltxrt.engines.parsing import json_input


@pytest.mark.parametrize(
    "text, message",
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b"[" * 33 + b"]" * 33, "nested deeper than 32"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper than 32"),
        (b'{"a": 1, "a": 2}', "a name appears twice in one object"),
        (b"1" * 400, "a whole number of 400 digits"),
        (b"-" + b"1" * 5000, "a whole number of 5000 digits"),
        (b"[1e999]", "beyond what a float holds"),
        (b"NaN", "NaN is not a JSON number"),
        (b"[-Infinity]", "-Infinity is not a JSON number"),
        (rb'{"a": "\ud800"}', "a lone surrogate"),
        (rb'{"\udfff": 1}', "a lone surrogate"),
        (b"\xff\xfe{\x00}\x00", "codec can't decode"),
        (b"", "Expecting value"),
    ],
)
def test_what_the_rest_of_a_program_does_not_expect_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        json_input.parse(text)


def test_everything_else_is_read():
    assert json_input.parse(b'\xef\xbb\xbf{"a": [1, -2.5, true, null, "\\ud83c\\udf0a \xc3\xbc"]}') == {
        "a": [1, -2.5, True, None, "🌊 ü"]
    }
    assert json_input.parse("[" * 31 + "18446744073709551615" + "]" * 31)
    assert json_input.parse("1" * 20) == int("1" * 20)


def test_a_file_is_regular_and_bounded(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    (tmp_path / "link").symlink_to(path)  # a hub's cache is made of links
    assert json_input.read(tmp_path / "link", 3) == [1]
    with pytest.raises(ValueError, match="larger than 2 bytes"):
        json_input.read(path, 2)
    os.mkfifo(tmp_path / "pipe")
    for other in (tmp_path / "pipe", tmp_path):
        with pytest.raises((ValueError, OSError), match=r"not a regular file|Is a directory"):
            json_input.read(other, 10)
    with pytest.raises(FileNotFoundError):
        json_input.read(tmp_path / "none", 10)
