"""Progress in a notebook, whose page is a list of what it was told to show."""

import sys
from types import SimpleNamespace

import pytest

from ltxrt.engines.progress import Progress
from ltxrt.engines.terminal import job


class Page:
    """IPython's module `display`."""

    def __init__(self):
        self.shown = []

    @staticmethod
    def HTML(text):
        return text

    def display(self, text, display_id):
        assert display_id is True
        self.shown.append(text)
        return SimpleNamespace(update=self.shown.append)


@pytest.fixture
def page(monkeypatch):
    """This process as one that runs a notebook's cells."""
    page = Page()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", page)
    return page


def test_a_notebook_shows_a_bar_in_the_cell(page, capsys):
    with job("ltxrt") as report:
        report.expect({"transformer": 3.0, "image decoder": 1.0})
        report(Progress("transformer", 0, 4, "step"))
        report(Progress("image decoder <b>", 0))
    begun, first, second, last = page.shown
    assert begun.startswith("<progress></progress>")
    assert first.startswith('<progress value="0.') and "<pre>transformer  step 0/4</pre>" in first
    assert "<pre>image decoder &lt;b&gt;</pre>" in second
    assert "progress" not in last  # the bar goes away, the time that it took stays
    assert capsys.readouterr() == ("", "")


def test_a_shell_without_a_page_is_a_terminal(page, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    with job("ltxrt") as report:
        report(Progress("transformer", 0, 4, "step"))
    assert page.shown == []
    assert capsys.readouterr().err == "transformer: step 0/4\n"
