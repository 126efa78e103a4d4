"""The page of a benchmark: what it opens with, its tables and its plots."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from ltxrt.parity.bench import cli, page, plots
from ltxrt.parity.bench.report import OURS, REFERENCE, Measurement, Profile, Result, Samples, Section


def result(**changes):
    step = Measurement(
        "1024 tokens",
        "s",
        (
            Samples(OURS, (1.0, 1.2), difference=3e-6),
            Samples(REFERENCE, (2.5, 2.4)),
            Samples("gpu", skipped="no | GPU <here>\nat all"),
        ),
        1024,
        100_000_000_000,
    )
    profile = Profile("1024 tokens", 1024, 2, {"MatMul": 1.0, "Add": 0.1}, 1.0, 100_000_000_000)
    peak = Measurement("8×8×8", "GFLOP/s", (Samples("NumPy", (250.0, 240.0)),))
    video = Measurement(
        "t2v, tiny model, 9×32×32",
        "s",
        (Samples(OURS, (0.3,), stages=({"a & b": 0.2},)), Samples(REFERENCE, (0.9,))),
    )
    parts = (
        Section("peak", "Peak", "Products.", (peak,), others=1.5),
        Section("transformer", "Step", "One step.", (step,), (profile,)),
        Section("videos", "Videos", "Whole runs.", (video,)),
        Section("memory", "Memory", "Bytes.", (Measurement("t2v", "bytes", (Samples(OURS, (5e7,)),)),)),
    )
    fields = {"machine": {"CPU": "a | b"}, "versions": {"numpy": "2"}, "settings": {}, "sections": parts}
    return Result(1, "ltx-parity bench", "today", **{**fields, **changes})


def test_page_names_goals_limits_and_who_was_skipped(tmp_path):
    paths = page.write(result(), tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| gpu | transformer | no \\| GPU &lt;here> at all |" in text
    assert "| CPU | a \\| b |" in text
    assert "2.2 × as fast as diffusers eager | 2.23 × (2.00–2.50) | yes |" in text
    assert "≥ 90% of the peak | 80% | no |" in text
    assert "1.1 s (1–1.2) | 2.45 s (2.4–2.5) | 2.23 × (2.00–2.50) | 3.0e-06 |" in text
    assert "3.00 at 1024 tokens" in text  # 250 GFLOP/s at most, 200 / 2.4 by diffusers
    assert "50 MB" in text
    assert "best single product of the whole run: 250 GFLOP/s" in text
    assert "Other processes used 1.50 cores on average meanwhile." in text
    pictures = [line.partition("](")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert sorted(pictures) == sorted(p.relative_to(tmp_path).as_posix() for p in paths if p.suffix == ".svg")
    assert len(pictures) == 4
    data = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert data["sections"][1]["measurements"][0]["samples"][1]["values"] == [2.5, 2.4]


def test_plots_are_the_same_xml_every_time_and_names_are_text():
    """Also where a name would be markup in XML, or mathematics to matplotlib."""
    strange = "<script>&$x_1$"
    one = Measurement(
        strange, "s", (Samples(OURS, (1.0,), stages=({strange: 0.5},)), Samples(strange, (2.0,)))
    )
    result_ = result(sections=(Section("videos", "Videos", "Runs.", (one,)), *result().sections[3:]))
    drawn = plots.draw(result_)
    assert drawn == plots.draw(result_)
    for svg in drawn.values():
        assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    texts = [text.strip() for text in ElementTree.fromstring(drawn["videos"]).itertext()]
    assert strange in texts and f"{strange}: ltxrt" in texts and "between" in texts


def run(*arguments):
    return CliRunner().invoke(cli.bench_command, list(map(str, arguments)))


def test_marks_say_what_they_are_and_colours_show_on_light_and_dark_pages():
    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(first, second):
        low, high = sorted((luminance(first), luminance(second)))
        return (high + 0.05) / (low + 0.05)

    drawn = plots.draw(result())
    used = {colour for svg in drawn.values() for colour in re.findall(r"#[0-9a-f]{6}\b", svg)}
    assert used > {plots.INK, *plots.COLOURS[:2]}
    assert [
        c for c in {*used, *plots.COLOURS} for page_ in ("#ffffff", "#0d1117") if contrast(c, page_) < 3
    ] == []
    titles = {
        t.text
        for svg in drawn.values()
        for t in ElementTree.fromstring(svg).iter(f"{{{plots.NAMESPACE}}}title")
    }
    assert titles >= {
        f"{OURS}: 1.1 s at 1024 tokens",
        "1024 tokens, MatMul: 1 s",
        "t2v, tiny: ltxrt, a & b: 0.2 s",
        "t2v: ltxrt, ltxrt: 50 MB",
    }
    assert not any(plots.TITLE in svg for svg in drawn.values())


def test_the_page_opens_with_what_was_measured_and_what_limits_it():
    opening, limits, *_ = page.page(result()).split("\n## ")
    assert "ltxrt beside diffusers on one machine (a | b)" in opening
    assert "| Step | 1024 tokens | 1.1 s | 2.45 s | 2.23 × (2.00–2.50) |" in opening
    assert limits.startswith(
        "What limits it\n\n- A transformer step of 1024 tokens is matrix products for 91%"
    )
    assert "they run at 80% of the best product" in limits
    assert "by more than 3.00 × here; ltxrt does by 2.23 ×." in limits
    assert "Other processes took up to 1.50 cores" in limits
    assert "Not measured: gpu ([why](#skipped))." in limits


@pytest.mark.parametrize("name", ["benchmarks", "benchmarks-compile"])
def test_the_pages_of_the_docs_are_what_their_json_gives(name, tmp_path):
    docs = Path(cli.__file__).parents[2] / "docs"
    done = run("--from", docs / f"{name}.json", "--output", tmp_path / f"{name}.md", "--json")
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout.splitlines()[-1])["files"]
    for path in map(Path, files):
        there = docs / path.relative_to(tmp_path)
        same = path.suffix == ".svg" or path.read_text(encoding="utf-8") == there.read_text(encoding="utf-8")
        assert same and there.is_file(), f"ltx-parity bench --from docs/{name}.json --output docs/{name}.md"


def test_what_is_no_result_is_not_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.json").write_text('{"schema": 1}')
    done = run("--from", "a.json", "--output", "page.md")
    assert done.exit_code == 2 and "error: a.json: is no result of ltx-parity bench (" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_run_of_nothing_is_a_page():
    text = page.page(result(sections=()))
    assert text.endswith("## Skipped\n\nNothing.\n")
    assert "## Goals" not in text
