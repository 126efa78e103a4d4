"""How the report's page looks: it is opened in a browser without a network."""

from pathlib import Path

import pytest
from browser import browse
from PIL import Image
from report_page import example

from ltxrt.parity.report import render


def strip(path):
    """A small PNG, grey."""
    Image.new("RGB", (320, 60), (120, 130, 140)).save(path)


@pytest.mark.parametrize("width", [1200, 420])
def test_a_browser_lays_it_out_without_a_network(tmp_path, width):
    page, picture = tmp_path / "report.html", tmp_path / "page.png"
    page.write_text(render(example()), encoding="utf-8")
    strip(tmp_path / "strip a.png")
    found = browse(page, picture, width)
    assert {Path(address).name for address in found["asked"]} == {"report.html", "strip%20a.png"}
    assert found["strip"] == [320] and found["overflow"] <= 0
    assert len(found["plots"]) == 5
    for drawing in found["plots"]:
        _, _, left, right, top, bottom = drawing["box"]
        assert right - left >= 380 and bottom - top >= 180
        assert drawing["points"] and len(drawing["texts"]) >= 8
        for wide, high, *edges in drawing["texts"] + drawing["points"]:
            assert wide > 0 or high > 0
            assert left <= edges[0] <= edges[1] <= right and top <= edges[2] <= edges[3] <= bottom
    assert all(inner <= outer + 1 for inner, outer in found["keys"])
    text, high = found["rows"][0]
    assert high > 100 and all(word in text for word in ("transformer", "FAILED", "PASSED"))
    assert found["verdict"] in ("rgb(179, 38, 30)", "rgb(255, 128, 120)")
    with Image.open(picture) as image:
        assert image.size == (width, found["height"])
        colours = image.convert("RGB").getcolors(1 << 24)
        assert (
            colours is not None and len(colours) > 50 and max(colours)[0] < 0.97 * image.width * image.height
        )


IMAGE = '<img src="https://example.org/a.png">'
SCRIPT = "<script>document.body.remove()</script>"


def test_a_browser_asks_for_nothing_elsewhere(tmp_path):
    page, leaky = tmp_path / "report.html", tmp_path / "leaky.html"
    page.write_text(render(example()), encoding="utf-8")
    assert browse(page, tmp_path / "page.png", 800, "remote")["asked"] == [page.as_uri()]
    leaky.write_text(f'<h1><b class="status">x</b></h1>{IMAGE}', encoding="utf-8")
    found = browse(leaky, tmp_path / "leaky.png", 800, "remote")
    assert found["asked"] == [leaky.as_uri(), "https://example.org/a.png"] and found["strip"] == [0]


def test_the_policy_stops_what_escaping_would_let_through(tmp_path):
    page = tmp_path / "report.html"
    page.write_text(render(example()).replace("</main>", f"{IMAGE}{SCRIPT}</main>"), encoding="utf-8")
    found = browse(page, tmp_path / "page.png", 800, "remote")
    assert len(found["plots"]) == 5 and found["asked"] == [page.as_uri()]
