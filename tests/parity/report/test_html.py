"""The report's page: what it says, by parsing it."""

import dataclasses
import math

import pytest
from report_page import SIZE, Page, calls, example, metrics, one_check, read, with_checks

from ltxrt.parity.check.results import Call, Check, Culprit, EndToEnd, Metrics, Report, Tolerance
from ltxrt.parity.report import render

EVIL = "<script>alert('x')</script>\"&"


def test_every_status_is_a_word_in_its_row():
    page = read(example())
    assert "transformer" in page.row("fp8", "✗ FAILED")
    assert "✓ PASSED" in page.row("transformer", "fp16", "PASSED")
    rows = page.texts("tr")
    below = rows[rows.index(page.row("✗ FAILED")) + 1]
    assert below == "relative L2 is too large."
    assert [text[:8] for text in page.texts("h1")] == ["✗ FAILED"]
    assert page.all("header", **{"class": "failed"})


def test_what_was_skipped_is_folded_with_its_reason():
    page = read(example())
    (folded,) = page.texts("details")
    assert folded.split("\n")[0] == "1 skipped"
    assert "There is no GPU that computes fp8. vae decoder fp8 on onnxruntime-cuda" in folded
    assert not any("SKIPPED" in row for row in page.texts("tr"))
    assert "open" not in page.all("details")[0][1]
    run = EndToEnd("bf16", "onnxruntime-cuda", "torch", "skipped", problems=("no CUDA",))
    alone = one_check(status="skipped", calls=(), problems=("no torch",))
    page = read(dataclasses.replace(with_checks(alone, status="skipped"), end_to_end=(run,)))
    assert [text.split("\n")[1] for text in page.texts("details")] == [
        "no torch transformer fp32 on onnxruntime-cuda",
        "no CUDA bf16 on onnxruntime-cuda",
    ]
    assert all("open" in attributes for _, attributes, _ in page.all("details")), "there is nothing else"


def test_the_cause_of_a_failure_comes_first():
    page = read(example())
    (cause,) = page.texts("div", **{"class": "cause"})
    assert cause == (
        "transformer fp8 on onnxruntime-cudarelative L2 is too large.The error begins at "
        "transformer_blocks.3: MatMul node_linear_17 → mul_42 (6.10e-02, allowed 3.00e-02)."
    )
    assert cause in page.texts("header")[0]
    run = EndToEnd("fp16", "onnxruntime", "torch", "failed", (0.5,), 3.0, 0.1, problems=("PSNR 3.0 dB",))
    page = read(dataclasses.replace(with_checks(one_check(), status="failed"), end_to_end=(run,)))
    assert page.texts("div", **{"class": "cause"}) == ["End to end fp16 on onnxruntimePSNR 3.0 dB"]


def test_strips_and_videos_say_which_side_is_which():
    page = read(example())
    captions = page.texts("figcaption")
    assert "Above diffusers 0.36, below it fp16 on onnxruntime-cuda, then their difference." in captions[-1]
    assert any("diffusers 0.36 left, fp16 on onnxruntime-cuda right" in text for text in page.texts("p"))


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
    limits = [text.strip() for text in page.texts("g", **{"class": "limit"})]
    assert limits[0] == "fp32 (tolerance 1.00e-05): tolerance 1.00e-05"
    curves = [text.strip() for text in page.texts("g", **{"class": "curve"})]
    assert all(curves) and "fp8: i2v, batch 3, 512x704x97, step 4" in curves
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
