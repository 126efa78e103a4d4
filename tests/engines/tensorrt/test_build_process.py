"""Real builds with TensorRT for RTX, which needs no GPU: how they are interrupted, written and configured."""

import os
import signal
import types

import pytest
import tensorrt_rtx

from ltxrt.engines import families
from ltxrt.engines.errors import EngineError, InputError
from ltxrt.engines.tensorrt import build as trt
from ltxrt.engines.tensorrt import build_process, profiles
from ltxrt.engines.tensorrt import log as trt_log


@pytest.fixture
def build(bundle, facts, tmp_path):
    """A function that builds the text encoder's engine at `output`, with options."""
    output = tmp_path / "e.engine"

    def run(**options):
        trt.build(
            bundle.path(bundle.graph("text_encoder").file),
            families.derive("text_encoder", facts),
            "tensorrt_rtx",
            "sm89",
            (profiles.parse("64x96x9", facts),),
            trt.BuildOptions(**options),
            output,
        )
        return output

    return run


@pytest.fixture
def configured(monkeypatch):
    """What the last build's configuration was, looked at before the build."""
    seen = {}
    real = build_process.write_engine

    def look(package, builder, network, config, output):
        seen["resize"] = config.get_preview_feature(
            tensorrt_rtx.PreviewFeature.RUNTIME_ACTIVATION_RESIZE_10_10
        )
        seen["user allocation"] = config.get_flag(tensorrt_rtx.BuilderFlag.REQUIRE_USER_ALLOCATION)
        return real(package, builder, network, config, output)

    monkeypatch.setattr(trt, "write_engine", look)
    return seen


@pytest.mark.parametrize("streaming", [False, True])
def test_engines_can_shrink_their_scratch_memory_and_be_recorded(build, configured, streaming):
    """Streamed weights are allocated while the engine runs, which excludes the second."""
    assert build(weight_streaming=streaming).stat().st_size > 1000
    assert configured == {"resize": True, "user allocation": not streaming}


def interrupting(monkeypatch, where):
    """Let a signal arrive while the builder calls Python back: `where` says from which call."""
    real_log, real_monitor = trt_log.collecting, build_process.monitor

    def raised(make, name, *arguments):
        class Interrupted(type(make)):
            count = 0

            def hit(self):
                Interrupted.count += 1
                if Interrupted.count == 20:
                    os.kill(os.getpid(), signal.SIGINT)

        def method(self, *given):
            self.hit()
            return getattr(super(Interrupted, self), name)(*given)

        setattr(Interrupted, name, method)
        return Interrupted(*arguments)

    if where == "log":
        monkeypatch.setattr(trt_log, "collecting", lambda package: raised(real_log(package), "log"))
    else:
        monkeypatch.setattr(
            trt, "monitor", lambda package, *given: raised(real_monitor(package, *given), "step_complete")
        )


@pytest.mark.parametrize("where", ["log", "monitor"])
def test_an_interruption_during_the_build_ends_it(build, monkeypatch, where):
    """Raised in the package's callbacks, KeyboardInterrupt was printed and forgotten; the build went on."""
    interrupting(monkeypatch, where)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_build_ends_at_the_step_after_the_interruption(monkeypatch, build):
    steps = []
    real = build_process.monitor

    def counting(package, *given):
        made = real(package, *given)

        class Counting(type(made)):
            def step_complete(self, phase, step):
                steps.append(phase)
                if len(steps) == 5:
                    os.kill(os.getpid(), signal.SIGINT)
                return super().step_complete(phase, step)

        return Counting()

    monkeypatch.setattr(trt, "monitor", counting)
    with pytest.raises(KeyboardInterrupt):
        build()
    assert 5 <= len(steps) < 40, "of 60 and more"


def test_what_the_progress_raises_ends_the_build(bundle, facts, tmp_path):
    """As `Job` does, when Ctrl-C was pressed while another thread ran the builder's callbacks."""
    shares = []

    def progress(share):
        shares.append(share)
        if len(shares) == 5:
            raise KeyboardInterrupt

    graph, contract = bundle.path(bundle.graph("text_encoder").file), families.derive("text_encoder", facts)
    sizes = (profiles.parse("64x96x9", facts),)
    with pytest.raises(KeyboardInterrupt):
        trt.build(graph, contract, "tensorrt_rtx", "sm89", sizes, trt.BuildOptions(), tmp_path / "e",
                  progress=progress)  # fmt: skip
    assert len(shares) == 5


# What the package said of its phases, shortened → the share after it.
STORY = (
    ("start", ("build", None, 2), 0),
    ("step", ("build",), 0.5),
    ("start", ("optimise", "build", 2), 0.5),
    ("step", ("optimise",), 0.75),
    ("start", ("time", "optimise", 4), 0.75),
    ("step", ("time",), 0.8125),
    ("finish", ("time",), 0.8125),  # ended before its last step: what is done stays
    ("start", ("time again", "optimise", 4), 0.8125),
    ("step", ("unknown",), 0.8125),
    ("step", ("optimise",), 1),
    ("finish", ("optimise",), 1),
    ("step", ("build",), 1),
    ("step", ("build",), 1),  # more often than there are steps
    ("finish", ("build",), 1),
)


def test_nested_phases_become_one_share():
    phases = build_process.Phases()
    assert phases.share == 0
    for number, (method, arguments, share) in enumerate(STORY):
        getattr(phases, method)(*arguments)
        assert phases.share == share, number


def test_other_handlers_run_after_the_block():
    seen = []
    old = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with build_process.Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interruption and seen == []
        assert seen == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(seen) == 2
    finally:
        signal.signal(signal.SIGTERM, old)


def test_an_engine_goes_straight_to_its_file_byte_for_byte(build, monkeypatch):
    streamed = build().read_bytes()
    monkeypatch.setattr(build_process, "hasattr", lambda owner, name: False, raising=False)
    assert build().read_bytes() == streamed


def test_a_file_that_cannot_be_written_ends_the_build(build, monkeypatch):
    """The package prints what its writer raises, and reports success."""
    real = build_process._writer

    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(build_process, "_writer", lambda package, file: real(package, Full()))
    with pytest.raises(OSError, match="No space left"):
        build()


def test_a_target_that_the_package_does_not_take_is_an_error():
    config = types.SimpleNamespace(set_compute_capability=lambda capability, index: False)
    with pytest.raises(EngineError, match=r"tensorrt_rtx \S+ does not build for sm89; upgrade it"):
        trt._configure(tensorrt_rtx, config, "sm89", trt.BuildOptions())


@pytest.mark.parametrize(
    ("backend", "target", "precision", "error"),
    [
        ("tensorrt_rtx", "sm75", "fp16", r"builds for sm80, .*; on Turing it has no 3-D convolutions"),
        ("tensorrt_rtx", "sm89", "fp8-fp16", r"fp8-fp16 is not for tensorrt_rtx: .* overflow; take fp8"),
        ("tensorrt", trt.THIS_GPU, "fp8-fp16", r"fp8-fp16 is not for tensorrt: .* overflow; take fp8"),
    ],
)
def test_what_gives_wrong_numbers_is_not_built(backend, target, precision, error):
    with pytest.raises(InputError, match=error):
        trt.check_target(backend, target, precision)
