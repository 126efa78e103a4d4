"""The keywords of a call are the fields of a request, with the same types."""

from typing import get_type_hints

from ltxrt.runtime.request import Request
from ltxrt.runtime.request.fields import SETTINGS
from ltxrt.runtime.request.keywords import Keywords


def test_keywords_are_the_fields_of_a_request_but_the_prompt():
    fields = get_type_hints(Request)
    assert fields.pop("prompt") is str
    assert get_type_hints(Keywords) == fields
    assert set(fields) == set(SETTINGS) - {"prompt"}
