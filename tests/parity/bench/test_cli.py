"""The benchmark: its counts, statistics, pages and turns. No figure of speed is asserted here."""

import json
import math
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from ltxrt.engines.bundle import read_bundle
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import TransformerFacts
from ltxrt.parity.bench import cli, processes, report, sections
from ltxrt.parity.bench.models import DESCRIPTIONS, Model, ensure
from ltxrt.parity.bench.processes import Arena, WorkerError, take_turns
from ltxrt.parity.bench.report import OURS, REFERENCE, Samples
from ltxrt.parity.bench.work import Contender, Work, grid_of, operations
from ltxrt.parity.bench.worker import Server, by_operator
from ltxrt.parity.metrics import relative_l2


def test_operations_are_those_of_a_hand_count():
    facts = TransformerFacts(2, 2, 3, 4, 4, 10, 1e4, (20.0, 2048.0, 2048.0), False, 1000.0)
    # Width 6, 4 channels, text width 10; 5 tokens, 3 text tokens, 1 timestep.
    ends = 5 * 4 * 6 + 5 * 6 * 4 + (256 * 6 + 6 * 6 + 6 * 36) + 3 * (10 * 6 + 6 * 6)
    projections = 4 * (5 * 6 * 6) + 2 * (5 * 6 * 6) + 2 * (3 * 6 * 6)
    attention = 2 * (5 * 5 * 6) + 2 * (5 * 3 * 6)
    feed_forward = 5 * 6 * 24 + 5 * 24 * 6
    whole = ends + 2 * (projections + attention + feed_forward)
    assert operations(facts, 5, 3) == whole
    assert operations(facts, 5, 3, batch=3) == 3 * whole


def test_operations_are_those_of_the_graph(tiny_bundle):
    """Every weight that the graph multiplies with, for as many rows as it has; and the attentions."""
    bundle = read_bundle(tiny_bundle("0.9.5"))
    facts, tokens, text = bundle.facts.transformer, 7, 5
    graph = onnx.load(str(bundle.path(bundle.graph("transformer").file)), load_external_data=False).graph
    sizes = {i.name: math.prod(i.dims) for i in graph.initializer}
    total = facts.layers * 2 * tokens * (tokens + text) * facts.width
    for name in (node.input[1] for node in graph.node if node.op_type == "MatMul"):
        of_text = "caption_projection" in name or ".attn2.to_k." in name or ".attn2.to_v." in name
        total += sizes[name] * (text if of_text else 1 if name.startswith("adaln_single") else tokens)
    assert operations(facts, tokens, text) == total


@pytest.mark.parametrize("power", [0.0, 1.0, 1.37, 2.0])
def test_exponent_of_exact_data(power):
    sizes = [256, 512, 1024, 4096]
    assert report.exponent([(n, 3e-4 * n**power) for n in sizes]) == pytest.approx(power)


def test_one_size_has_no_exponent():
    assert report.exponent([(256, 1.0)]) is None


def test_turns_alternate_and_who_fails_is_not_asked_again():
    log, skipped = [], {"D": "is not installed"}

    def turn(contender):
        log.append(contender.name)
        if contender.name == "C":
            raise WorkerError("there is no such device")
        return len(log)

    found = take_turns([Contender(name, "ltxrt") for name in "ABCD"], 3, skipped, turn)
    assert "".join(log) == "ABCABAB"
    assert found == {"A": [1, 4, 6], "B": [2, 5, 7]}
    assert skipped == {"C": "there is no such device", "D": "is not installed"}


def test_spread_and_ratio():
    assert report.spread([3.0, 1.0, 8.0]) == report.Spread(3.0, 1.0, 8.0)
    found = report.ratio(Samples("a", (1.0, 2.0, 4.0)), Samples("b", (3.0, 4.0, 4.0)))
    assert found == report.Spread(2.0, 1.0, 3.0)


def test_stages_are_medians_in_order():
    stages = ({"text": 1.0, "image": 5.0}, {"text": 3.0, "image": 7.0})
    assert list(report.stage_medians(Samples("a", (6.0, 10.0), stages=stages)).items()) == [
        ("text", 2.0),
        ("image", 6.0),
    ]


@pytest.mark.parametrize("tokens", [1, 7, 24, 256, 1024, 2048, 4096])
def test_grid_has_the_tokens(tokens):
    assert math.prod(grid_of(tokens)) == tokens


def test_grid_is_near_a_cube():
    assert grid_of(1024) == (8, 8, 16)


def test_relative_l2():
    one = np.array([3.0, 4.0], np.float32)
    assert relative_l2(one, one) == 0
    assert relative_l2(np.zeros(2, np.float32), one) == 1
    assert relative_l2(np.zeros(3, np.float32), one) == math.inf
    assert relative_l2(one, np.zeros(2, np.float32)) == math.inf
    assert relative_l2(np.array([np.nan, 4], np.float32), one) == math.inf


def test_profile_leaves_the_warm_up_out():
    def node(ts, name, dur):
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": name}}

    def run(ts):
        return {"cat": "Session", "name": "model_run", "ts": ts, "dur": 100}

    events = [run(0), node(1, "MatMul", 9e6), run(10), node(11, "MatMul", 2e6), node(12, "Add", 1e6)]
    events += [
        run(20),
        node(21, "MatMul", 4e6),
        {"cat": "Node", "name": "x_fence_before", "ts": 22, "dur": 5},
    ]
    assert by_operator(events, 2) == {"MatMul": 3.0, "Add": 0.5}


class Scripted:
    """A worker that answers from a script and writes down who was asked what."""

    def __init__(self, contender, log, fails):
        self.name, self.log, self.fails = contender.name, log, fails

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.log.append(f"{self.name} end")

    def warm_up(self, work):
        self.log.append(f"{self.name} warm up")
        if self.name == self.fails:
            raise WorkerError("there is no such device")

    def output(self):
        return np.full(2, 2.0 if self.name == OURS else 1.0)

    def run(self):
        self.log.append(f"{self.name} run")
        return {"seconds": 1.0, "stages": {}}


def test_contenders_warm_up_and_take_turns():
    log, absent = [], {}
    contenders = [Contender(name, "ltxrt") for name in (OURS, REFERENCE, "gpu")]
    contenders.append(Contender("old", "ltxrt", unavailable="is not installed"))
    start = lambda contender, threads: Scripted(contender, log, "gpu")  # noqa: E731
    with Arena(contenders, 1, 2, absent, start) as arena:
        ours, theirs, gpu, old = arena.warm(Work("transformer", "model", 1))
        assert (ours.values, ours.difference, theirs.values) == ((1.0, 1.0), 1.0, (1.0, 1.0))
        assert theirs.difference is None
        assert (gpu.values, gpu.skipped) == ((), "there is no such device")
        assert (old.values, old.skipped) == ((), "is not installed")
        both = [OURS, REFERENCE]
        assert log == [f"{n} warm up" for n in (*both, "gpu")] + [f"{n} run" for n in both * 2]
        log.clear()
        arena.warm(Work("vae_encoder", "model", 1))
        assert not [line for line in log if line.startswith("gpu")]
    assert absent["gpu", "model"] == "there is no such device"
    assert log[-3:] == [f"{n} end" for n in ("gpu", REFERENCE, OURS)]


def test_every_cold_start_is_a_process_of_its_own(monkeypatch, tmp_path):
    """One process more than repetitions: the first warms the file cache. What cannot start is asked once."""
    log = []

    def fresh(contender, work, threads, do):
        log.append(contender.name)
        if contender.name not in (OURS, REFERENCE):
            raise WorkerError("is not installed")
        return float(len(log))

    monkeypatch.setattr(processes, "fresh", fresh)
    plan = sections.Plan(tmp_path, 1, 2, (1,), 1)
    samples = plan.arena().fresh(Work("transformer", "model", 1), "run")
    contenders = plan.contenders()
    asked = [one.name for one in contenders if not one.unavailable]
    assert log == [*asked, OURS, REFERENCE, OURS, REFERENCE]
    assert [one.contender for one in samples] == [one.name for one in contenders]
    values = {one.contender: one.values for one in samples}
    assert values[OURS] == (len(asked) + 1.0, len(asked) + 3.0)
    skipped = {one.contender: one.skipped for one in samples if one.skipped}
    assert skipped.keys() == {one.name for one in contenders} - {OURS, REFERENCE}
    assert skipped["diffusers torch.compile"] == "--compile was not given"


def test_a_worker_answers_failures():
    server = Server()
    assert server.answer({"do": "run"}) == {"failed": "nothing was prepared"}
    assert server.answer({"do": "dance"}) == {"failed": "'dance'"}
    assert server.answer({"do": "peak"})["bytes"] > 1 << 20


def test_a_worker_keeps_packages_from_its_answers():
    request = json.dumps({"do": "peak"}) + "\n"
    command = [sys.executable, "-m", "ltxrt.parity.bench.worker"]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["bytes"] > 0


def run(*arguments):
    return CliRunner().invoke(cli.bench_command, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--suite", "huge"], "'--suite': 'huge' is not one of 'quick', 'full'"),
        (["--only", "coffee"], "'--only': 'coffee' is not one of 'peak', 'transformer',"),
        (["--threads", 0], "'--threads': 0 is not in the range 1<=x<=1000"),
        (["--repeats", -1], "'--repeats': -1 is not in the range 1<=x<=1000"),
        (["--tokens", "256,many"], "--tokens '256,many': must be numbers from 1 to 65536"),
        (["--tokens", "0"], "--tokens '0': must be numbers"),
        (["--output", "page.html"], "--output page.html: must end in .md"),
        (["--output", "absent/page.md"], "its folder does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    found = run("--output", "page.md", *options)
    assert found.exit_code == 2
    assert found.output.startswith("error: ") and message in found.output
    assert found.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_names_are_the_sections():
    assert tuple(sections.SECTIONS) == cli.NAMES


def test_models_have_a_description_and_a_name():
    assert Model("wide", 3).configs().transformer.layers == 3
    assert Model("wide", 3).configs().transformer.width == 2048
    assert set(DESCRIPTIONS) == {"tiny", "medium", "wide"}
    with pytest.raises(InputError, match="no benchmark model"):
        Model("huge").configs()


def test_a_strange_folder_is_not_taken_for_a_model(tmp_path):
    (tmp_path / "tiny").mkdir()
    with pytest.raises(InputError, match="exists and is not a benchmark model"):
        ensure(tmp_path, Model("tiny"))


@pytest.fixture
def work(tmp_path, tiny_bundle, diffusers_folder):
    """The tests' own tiny model where the benchmark's wide one is looked for."""
    folder = tmp_path / "work" / "wide-2-layers"
    shutil.copytree(tiny_bundle("0.9.5"), folder / "bundle")
    shutil.copytree(diffusers_folder("0.9.5"), folder / "diffusers")
    return tmp_path / "work"


def test_a_small_run(work, tmp_path, monkeypatch):
    """The transformer section on a tiny model: workers, turns, profile, page."""
    monkeypatch.setattr(sections, "BESIDE", (64, 64, 64))
    monkeypatch.setattr(sections, "PRODUCTS", 1)
    output = tmp_path / "page.md"
    options = ["--only", "transformer", "--repeats", 1, "--threads", 1]
    found = run("--work", work, *options, "--layers", 2, "--tokens", "6,24", "--output", output)
    assert found.exit_code == 0, found.output
    text = output.read_text(encoding="utf-8")
    (steps,) = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))["sections"]
    assert [row["unit"] for row in steps["measurements"]] == ["s", "GFLOP/s"] * 2 + ["GFLOP/s"]
    for row in (row for row in steps["measurements"] if row["unit"] == "s"):
        samples = {s["contender"]: s for s in row["samples"]}
        assert len(samples[OURS]["values"]) == len(samples[REFERENCE]["values"]) == 1
        assert samples[OURS]["difference"] < 1e-4
        assert samples["ltxrt tensorrt"]["skipped"] and samples["diffusers torch.compile"]["skipped"]
    assert steps["profiles"][0]["matrix_seconds"] > 0
    assert steps["others"] is None or steps["others"] >= 0
    assert "| operations | " in text and "--compile was not given" in text
    assert {p.name for p in (tmp_path / "page").iterdir()} == {
        "transformer-tokens.svg",
        "transformer-operators.svg",
    }
    assert str(tmp_path) not in text


def test_full_size_reads_from_the_disk_and_starts_both(work, tmp_path, monkeypatch):
    """The section on a tiny model, told to have the 2B's number of layers."""
    monkeypatch.setattr(sections, "LAYERS", 2)
    section = sections.full_size(sections.Plan(work, 1, 1, (), 2))
    assert [row.name for row in section.measurements] == [
        "reading the weights from the disk",
        "first transformer call",
    ]
    for row in section.measurements:
        assert [s.contender for s in row.samples] == [OURS, REFERENCE]
        assert all(len(s.values) == 1 and s.values[0] > 0 for s in row.samples)


def test_reading_reads_every_file(tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("a", "folder/b"):
        (tmp_path / name).write_bytes(b"x" * 100_000)
    assert processes.read_from_disk(tmp_path) > 0
    assert processes.files_in(tmp_path) == [tmp_path / "a", tmp_path / "folder" / "b"]
