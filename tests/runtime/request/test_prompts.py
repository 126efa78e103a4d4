"""Files of prompts: what a line may be, and what its errors name."""

import io
import json
import sys

import pytest

from ltxrt.engines.errors import InputError
from ltxrt.runtime.request import prompts


def write(tmp_path, content):
    file = tmp_path / "p.txt"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_a_line_is_a_prompt_or_an_object_of_settings(tmp_path):
    data = {"prompt": "rain", "seed": 7, "second_pass": {"steps": 3}}
    text = f"\ufefffog over a lake\r\n\n  # a remark\n {json.dumps(data)} \nwind\u2028in grass\n"
    lines = prompts.read(write(tmp_path, text))
    assert [line.values for line in lines] == [
        {"prompt": "fog over a lake"},
        data,
        {"prompt": "wind\u2028in grass"},  # that is no end of a line in a text file
    ]
    assert [line.place for line in lines] == [
        f"\x0eprompts\x0f {tmp_path / 'p.txt'}, line {n}" for n in (1, 4, 5)
    ]


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fog\nrain\n")))
    assert [line.values["prompt"] for line in prompts.read(prompts.Path("-"))] == ["fog", "rain"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"^prompts .*p\.txt: has no prompts; write one in each line$"),
        ("# a\n\n", "has no prompts"),
        (b"fog \xe9", r"^prompts .*p\.txt: is no UTF-8 text; save it as UTF-8$"),
        ("fog\n{'prompt': 3}", r"p\.txt, line 2: no JSON object that is read here \("),
        ('{"prompt": 3}', r"p\.txt, line 1: prompt is 3; it must be text"),
        ('{"promt": "fog"}', r"p\.txt, line 1: unknown key 'promt'; the nearest known one is prompt"),
        ('{"second_pass": {"seed": 1}}', r"p\.txt, line 1: unknown key 'seed'"),
        ('{"steps": 1' + "0" * 30 + "}", "a whole number of 31 digits"),
    ],
)
def test_a_wrong_file_gets_one_sentence(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        prompts.read(write(tmp_path, content))


def test_a_file_that_is_absent_too_large_or_none_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"^prompts .*absent: no such file$"):
        prompts.read(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read"):
        prompts.read(tmp_path)
    monkeypatch.setattr(prompts, "MOST_LINES", 2)
    assert len(prompts.read(write(tmp_path, "fog\n\n# no more\nrain\n"))) == 2
    with pytest.raises(InputError, match=r"p\.txt, line 3: more than 2 prompts"):
        prompts.read(write(tmp_path, "fog\nrain\nsnow"))
    monkeypatch.setattr(prompts, "MOST_BYTES", 3)
    with pytest.raises(InputError, match="larger than 3 bytes"):
        prompts.read(write(tmp_path, "fog over"))


def test_an_error_names_the_line_that_it_is_about():
    line = prompts.Line("p.txt, line 3", {"prompt": "fog", "height": 40})
    for message, text in (
        (
            "\x0eheight\x0f 40: must be less than \x0ewidth\x0f",
            "p.txt, line 3: height 40: must be less than width",
        ),
        ("the prompt is odd", "p.txt, line 3: the prompt is odd"),
        ("\x0ewidth\x0f 3: must be more", "width 3: must be more"),  # no setting of this line
    ):
        with pytest.raises(InputError) as error, line.named():
            raise InputError(message)
        assert str(error.value) == text
    assert error.value.field == "width"
