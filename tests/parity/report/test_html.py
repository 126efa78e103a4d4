"""The report's page: what it says by parsing it, how it looks by opening it in a browser without a network.

Run as a script, this file is that browser: `test_html.py PAGE PICTURE WIDTH [remote]`.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from ltxrt.parity.check.results import Call, Check, Culprit, EndToEnd, Metrics, Report, Tolerance
from ltxrt.parity.report import render

VOID = {"meta", "img"}
EVIL = "<script>alert('x')</script>\"&"
STEPS = 4
SIZE = "512x704x97"

# What the page shows once it is laid out; read through the page's own engine.
PROBE = """
JSON.stringify({
  plots: [...document.querySelectorAll("svg.plot")].map(svg => {
    const inside = box => [box.width, box.height, box.left, box.right, box.top, box.bottom];
    return {box: inside(svg.getBoundingClientRect()),
            texts: [...svg.querySelectorAll("text")].map(t => inside(t.getBoundingClientRect())),
            points: [...svg.querySelectorAll(".points use, .curve path")].map(
              t => inside(t.getBoundingClientRect()))};
  }),
  rows: [...document.querySelectorAll("table")].map(t => [t.innerText, t.getBoundingClientRect().height]),
  keys: [...document.querySelectorAll("figcaption span")].map(
    s => [s.getBoundingClientRect().right, s.closest("figure").getBoundingClientRect().right]),
  overflow: document.documentElement.scrollWidth - window.innerWidth,
  height: document.documentElement.scrollHeight,
  strip: [...document.images].map(i => i.naturalWidth),
  verdict: getComputedStyle(document.querySelector("h1 .status")).color,
})
"""


FRAMES = "JSON.stringify([innerHeight, ltxrtFrames])"
COUNT_FRAMES = """
window.ltxrtFrames = 0;
(function next() { requestAnimationFrame(() => { window.ltxrtFrames += 1; next(); }); })();
"""


class Page(HTMLParser):
    """Elements as (tag, attributes, text), text of nested elements included; open elements must be closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        element = [tag, dict(attributes), ""]
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for element in self.open:
            element[2] += data

    def all(self, tag, **attributes):
        return [e for e in self.elements if e[0] == tag and attributes.items() <= e[1].items()]

    def texts(self, tag, **attributes):
        return [text for _, _, text in self.all(tag, **attributes)]

    def row(self, *cells):
        """Text of the only row that has these cells."""
        found = [text for text in self.texts("tr") if all(cell in text for cell in cells)]
        assert len(found) == 1, found
        return found[0]


def metrics(error, psnr=60.0):
    return Metrics(error, 1 - error**2 / 2, psnr, psnr, 3 * error)


def calls(error, timesteps=True, pieces=16):
    """Eight calls: two cases of four steps; errors grow towards the clean end and along the tokens."""
    found = []
    for case, factor, batch in (("t2v, batch 1", 1.0, 1), ("i2v, batch 3", 1.6, 3)):
        for step in range(1, STEPS + 1):
            size = error * factor * (1 + 0.4 * step)
            tokens = tuple(size * (0.7 + 0.5 * math.sin(i / 3) ** 2) for i in range(pieces))
            timestep = 1 - (step - 1) / STEPS if timesteps else None
            found.append(
                Call(case, SIZE, batch, step if timesteps else None, timestep, metrics(size), tokens)
            )
    return tuple(found)


def example():
    """Two components in three precisions: one check failed, one was skipped."""
    checks = []
    for component, timesteps in (("transformer", True), ("vae decoder", True)):
        for precision, error, allowed in (("fp32", 2e-6, 1e-5), ("fp16", 4e-4, 2e-3), ("fp8", 1.1e-2, 3e-2)):
            reason = f"{precision} rounds each product; {allowed:g} is four times what was measured."
            tolerance = Tolerance(allowed, 1 - allowed**2, 40.0, reason)
            check = Check(component, precision, "onnxruntime-cuda", "diffusers 0.36", "passed", tolerance,
                          calls(error, timesteps), (), 12.5)  # fmt: skip
            checks.append(check)
    first = checks[2].calls
    broken = dataclasses.replace(
        first[-1], metrics=metrics(7.2e-2, 31.0), problems=("relative L2 is too large.",)
    )
    checks[2] = dataclasses.replace(checks[2], status="failed", calls=(*first[:-1], broken))
    skipped = ("There is no GPU that computes fp8.",)
    checks[5] = dataclasses.replace(checks[5], status="skipped", calls=(), problems=skipped, seconds=0.0)
    cosines = (1.0, 0.9999993, 0.999995, 0.99998)
    names = ("fp16", "onnxruntime-cuda", "diffusers 0.36", "passed")
    entry = EndToEnd(*names, cosines, None, 0.9987, "strip a.png", "both.mp4")
    operator = "MatMul node_linear_17 → mul_42"
    culprit = Culprit("transformer", "fp8", "transformer_blocks.3", operator, 0.061, 0.03)
    return Report(
        1, "failed", "bundles/ltxv-2b-0.9.6", "0.9.6", "2026-01-02T03:04:05+00:00",
        {"python": "3.11.7", "onnxruntime": "1.24.1", "device": "NVIDIA H200"},
        {"transformer.fp16.onnx": "sha256:" + "0a1b2c3d" * 8}, tuple(checks), (entry,), (culprit,),
    )  # fmt: skip


def with_checks(*checks, status="passed"):
    return dataclasses.replace(example(), status=status, checks=checks, end_to_end=(), culprits=())


def one_check(**changes):
    return dataclasses.replace(example().checks[0], **changes)


def read(report):
    return Page(render(report))


def test_every_status_is_a_word_in_its_row():
    page = read(example())
    assert "transformer" in page.row("fp8", "✗ FAILED")
    assert "✓ PASSED" in page.row("transformer", "fp16", "PASSED")
    assert (
        "vae decoder" in page.row("fp8", "– SKIPPED") and "8" not in page.row("SKIPPED").split("SKIPPED")[1]
    )
    rows = page.texts("tr")
    below = rows[rows.index(page.row("– SKIPPED")) + 1]
    assert below == "There is no GPU that computes fp8."
    assert [text[:8] for text in page.texts("h1")] == ["✗ FAILED"]
    assert page.all("header", **{"class": "failed"})


def test_a_row_has_the_worst_numbers_beside_what_is_allowed():
    check = one_check()
    last = dataclasses.replace(check.calls[0], metrics=Metrics(9e-6, 0.99999996, 51.26, 50.0, 1e-4))
    row = read(with_checks(dataclasses.replace(check, calls=(*check.calls, last)))).row(
        "onnxruntime", "PASSED"
    )
    for cell in ("9.00e-06", "1.00e-05", "0.9999999", "51.3", "9", "12.5"):
        assert cell in row
    assert "1.0000000" not in row


def test_equal_tensors_have_no_number_for_psnr():
    same = Call("t2v", SIZE, 1, None, None, Metrics(0.0, 1.0, None, None, 0.0))
    page = read(with_checks(one_check(calls=(same,))))
    assert "equal" in page.row("onnxruntime", "✓ PASSED")
    assert "1.0000000" in page.row("onnxruntime", "✓ PASSED")
    entry = next(text for text in read(example()).texts("p") if "SSIM" in text)
    assert "PSNR equal" in entry and "0.9987" in entry


def test_the_worst_calls_come_in_order_of_what_is_allowed():
    page = read(example())
    table = page.texts("tr")
    start = next(i for i, text in enumerate(table) if "error / allowed" in text)
    rows = table[start + 1 : start + 12]
    assert "fp8" in rows[0] and "2.40" in rows[0]
    assert rows.pop(1) == "relative L2 is too large."
    assert all("fp" in row for row in rows) and "precision" in table[start + 12]  # the next table


def test_a_call_that_gave_nothing_is_the_worst():
    lost = Call("t2v, batch 2", SIZE, 2, 1, 1.0, None, (), ("The engine stopped.",))
    page = read(with_checks(one_check(calls=(*calls(1e-6), lost), status="failed"), status="failed"))
    table = page.texts("tr")
    start = next(i for i, text in enumerate(table) if "error / allowed" in text)
    assert "The engine stopped." in table[start + 2]


def test_names_are_never_markup():
    call = dataclasses.replace(calls(1e-6)[0], case=EVIL, size=EVIL, problems=(EVIL,))
    tolerance = Tolerance(1e-5, 0.9, 40.0, EVIL)
    check = Check(EVIL, EVIL, EVIL, EVIL, EVIL, tolerance, (call,), (EVIL,))
    entry = EndToEnd(
        EVIL, EVIL, EVIL, EVIL, (0.9,), 1.0, 0.9, f"https://x/{EVIL}", "javascript:alert(1)", (EVIL,)
    )
    culprit = Culprit(EVIL, EVIL, EVIL, EVIL, 0.1, 0.1)
    pairs = {EVIL: EVIL}
    report = Report(1, EVIL, EVIL, EVIL, EVIL, pairs, pairs, (check,), (entry,), (culprit,))
    page = read(report)
    assert page.all("script") == []
    assert EVIL in page.texts("h1")[0]
    assert {key for _, attributes, _ in page.elements for key in attributes if key.startswith("on")} == set()
    links = [a["href"] for _, a, _ in page.all("a")] + [a["src"] for _, a, _ in page.all("img")]
    assert len(links) == 2 and all(link.startswith("./") and ":" not in link for link in links)


def test_what_utf_8_cannot_write_is_replaced():
    text = render(dataclasses.replace(example(), bundle="a\ud800b"))
    assert "a?b" in text.encode("utf-8").decode("utf-8")


def test_nothing_comes_from_outside_but_the_strip():
    text = render(example())
    page = Page(text)
    for word in ("http://", "https://", "url(", "@import"):
        assert word not in text
    assert [a["src"] for _, a, _ in page.elements if "src" in a] == ["./strip%20a.png"]
    links = [a["href"] for _, a, _ in page.elements if "href" in a]
    assert [link for link in links if not link.startswith("#")] == [
        "./both.mp4"
    ]  # the others: marks of points
    tags = {tag for tag, _, _ in page.elements}
    assert tags & {"script", "link", "iframe", "object", "video", "base"} == set()
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0][1]["content"]
    assert "default-src 'none'" in policy and "script-src" not in policy


def test_the_same_report_gives_the_same_page_and_each_id_once():
    text = render(example())
    assert render(example()) == text
    ids = [a["id"] for _, a, _ in Page(text).elements if "id" in a]
    assert ids and len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("report", "word"),
    [
        (Report(1, "passed", "b", "0.9.5", "now", {}, {}, ()), "FAILED"),
        (Report(1, "failed", "b", "0.9.5", "now", {}, {}, ()), "FAILED"),
        (Report(1, "skipped", "b", "0.9.5", "now", {}, {}, ()), "SKIPPED"),
        (with_checks(one_check()), "PASSED"),
        (with_checks(one_check(status="skipped", calls=(), problems=("no torch",))), "FAILED"),
        (with_checks(one_check(), one_check(status="failed")), "FAILED"),
        (with_checks(one_check(), status="unheard of"), "FAILED"),
    ],
)
def test_only_what_was_checked_is_passed(report, word):
    page = read(report)
    assert word in page.texts("h1")[0] and f"Parity {word.lower()}" in page.texts("title")[0]


def test_an_empty_report_says_so_and_has_no_empty_parts():
    page = read(Report(1, "passed", "b", "0.9.5", "now", {}, {}, ()))
    assert page.texts("h2") == ["Checks"]
    assert any("Nothing was checked." in text for text in page.texts("header"))
    assert page.all("table") == [] and page.all("svg") == []


def test_sections_in_order():
    plots = ["Error by timestep", "Error by token"]
    details = ["Worst calls", "End to end", "Where the error begins"]
    assert read(example()).texts("h2") == ["Checks", *plots, *details, "Environment", "Graphs", "Tolerances"]


def test_a_plot_has_a_point_for_each_call_and_a_dashed_line_for_each_tolerance():
    page = read(example())
    assert (
        len(page.all("svg", **{"class": "plot", "role": "img"})) == 5
    )  # two by timestep and token, one by step
    assert len([text for text in page.texts("use") if "at timestep" in text]) == 5 * 8
    assert len(page.all("g", **{"class": "limit"})) == 5
    captions = page.texts("figcaption")
    words = ("fp32 (tolerance 1.00e-05)", "● t2v, batch 1", "■ i2v, batch 3", "fp8", "┅ tolerance")
    assert all(word in captions[0] for word in words)
    assert "fp8: i2v, batch 3, 512x704x97, step 4" in captions[2]  # the worst call, the broken one
    names = [a["aria-label"] for _, a, _ in page.all("svg")]
    assert names[0].startswith("relative L2 against timestep (1 is noise): fp32") and "fp8" in names[2]


def plotted(*errors):
    """The only plot by timestep of calls with these errors: texts, and heights of the points by error."""
    found = [Call("t2v", SIZE, 1, i, i / 10, Metrics(y, 1.0, y, y, y)) for i, y in enumerate(errors)]
    page = read(with_checks(one_check(calls=tuple(found), tolerance=None)))
    assert len(page.all("svg")) == 1
    heights = {text.split(": ")[1].split(" at")[0]: float(a["y"]) for _, a, text in page.all("use")}
    return page, page.texts("text"), heights


@pytest.mark.parametrize(
    ("errors", "marks"),
    [
        ([1.2e-3, 3e-3], ["10⁻³", "2·10⁻³", "5·10⁻³", "10⁻²"]),
        ([2e-6, 0.04], ["10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹"]),
        ([0.0, 2e-3], ["10⁻⁴", "2·10⁻⁴", "5·10⁻⁴", "10⁻³", "2·10⁻³", "5·10⁻³", "10⁻²"]),
    ],
)
def test_the_error_axis_ends_at_powers_of_ten_around_the_values(errors, marks):
    _, texts, heights = plotted(*errors)
    assert [text for text in texts if "10" in text] == marks
    assert min(heights.values()) >= 12 and max(heights.values()) <= 250


def test_values_that_have_no_place_lie_on_the_edges_and_the_caption_says_so():
    page, _, heights = plotted(0.0, 2e-3, math.nan, math.inf)
    assert heights["0.00e+00"] == 250 and heights["nan"] == heights["inf"] == 12
    assert 12 < heights["2.00e-03"] < 250
    (caption,) = page.texts("figcaption")
    assert "On the lower edge: 0" in caption and "On the upper edge: NaN or infinite" in caption
    assert "edge" not in plotted(1e-3)[0].texts("figcaption")[0]


def test_numbers_of_any_size_break_nothing():
    odd = [0.0, math.nan, math.inf, 1e300, 5e-324, -1.0]
    found = [Call("t2v", SIZE, 1, 1, y, metrics(1e-3), tuple(odd)) for y in odd]
    found += [Call("t2v", SIZE, 1, 1, 0.5, Metrics(y, y, y, y, y), (y,)) for y in odd]
    tolerances = [Tolerance(y, y, y, "odd") for y in odd]
    checks = [one_check(calls=tuple(found), tolerance=tolerance) for tolerance in tolerances]
    entry = dataclasses.replace(example().end_to_end[0], cosine_by_step=(math.nan, 1.0, 2.0))
    page = read(dataclasses.replace(with_checks(*checks), end_to_end=(entry,)))
    assert len(page.all("svg")) == 3
    assert all(-1 <= float(a[name]) <= 600 for _, a, _ in page.elements for name in ("x", "y") if name in a)
    assert all("nan" not in a["d"] and "inf" not in a["d"] for _, a, _ in page.all("path"))


def test_dollars_in_names_are_no_mathematics():
    page = read(with_checks(one_check(precision="$x", backend=r"$\frac{$", calls=calls(1e-6))))
    assert "$x (tolerance" in page.texts("figcaption")[0] and r"$\frac{$" in page.texts("h3")[0]


def test_no_tolerance_means_no_line_and_no_rank():
    page = read(with_checks(one_check(tolerance=None)))
    assert page.all("g", **{"class": "limit"}) == []
    assert "Worst calls" not in page.texts("h2") and "Tolerances" not in page.texts("h2")


def strip(path):
    """A small PNG, grey."""
    Image.new("RGB", (320, 60), (120, 130, 140)).save(path)


def browse(page, picture, width, *options):
    """What a browser of its own process finds on a page: PROBE's answer and the addresses it asked for.

    With "remote", a page from a file may ask for addresses elsewhere, which are seen and refused; it then
    gets no files either. Without, the browser does not even ask.
    """
    command = [sys.executable, __file__, str(page), str(picture), str(width), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"the browser did not run; install the dev extra\n{done.stderr}"
    return json.loads(done.stdout)


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
    assert high > 100 and all(word in text for word in ("transformer", "FAILED", "SKIPPED", "PASSED"))
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


def browser(page, picture, width, remote):
    """Open a page with all addresses but files refused, write its picture, print what `browse` gives."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    flags = "--no-sandbox --disable-gpu --proxy-server=127.0.0.1:9"
    os.environ["QTWEBENGINE_CHROMIUM_FLAGS"] = flags
    from PySide6.QtCore import QTimer, QUrl
    from PySide6.QtWebEngineCore import QWebEngineSettings, QWebEngineUrlRequestInterceptor
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    asked = []

    class Refuse(QWebEngineUrlRequestInterceptor):
        def interceptRequest(self, info):
            asked.append(info.requestUrl().toString(QUrl.ComponentFormattingOption.FullyEncoded))
            info.block(info.requestUrl().scheme() != "file")

    application = QApplication([])
    view, refuse = QWebEngineView(), Refuse()
    view.page().profile().setUrlRequestInterceptor(refuse)
    settings, option = view.settings(), QWebEngineSettings.WebAttribute
    settings.setAttribute(option.LocalContentCanAccessRemoteUrls, remote)
    settings.setAttribute(option.ShowScrollBars, False)  # they come and go with the window's height
    view.resize(width, 900)
    view.show()

    def measured(answer):
        view.resize(width, json.loads(answer)["height"])
        view.page().runJavaScript(COUNT_FRAMES)
        again()

    def again():
        QTimer.singleShot(20, lambda: view.page().runJavaScript(FRAMES, settled))

    def settled(answer):
        """Asked until it is so, however long that takes: laid out at the new height, and painted."""
        height, frames = json.loads(answer)
        if height != view.height() or frames < 3 or not (remote or painted(view.grab().toImage())):
            again()
        else:
            view.page().runJavaScript(PROBE, finish)

    def painted(image):
        """Drawn as far as the tests want it: after a resize, bands are painted one by one, white at first."""
        points = [(x, y) for y in range(0, image.height(), 3) for x in range(0, image.width(), 3)]
        return len({image.pixel(*point) for point in points}) > 50

    def finish(answer):
        view.grab().save(str(picture))
        print(json.dumps({**json.loads(answer), "asked": asked}))
        application.quit()

    view.loadFinished.connect(lambda _: view.page().runJavaScript(PROBE, measured))
    view.load(QUrl.fromLocalFile(str(page)))
    QTimer.singleShot(600_000, lambda: application.exit(3))  # no measure of speed: a run takes 3 s
    status = application.exec()
    sys.stdout.flush()
    os._exit(status)  # Qt's order of destruction at exit is not worth a crash


if __name__ == "__main__":
    browser(
        Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), int(sys.argv[3]), sys.argv[4:] == ["remote"]
    )
