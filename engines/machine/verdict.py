"""An examination as text: the facts in a column, then the verdict and the command to run next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from ltxrt.engines.description import file_size, memory_size
from ltxrt.engines.machine.doctor import BackendState, BundleState, Examination, Machine

PROMPT = "waves break on a rocky shore"


@dataclass(frozen=True)
class Verdict:
    """ok: videos can be made; text: why, in a sentence; next: the command that leads on."""

    ok: bool
    text: str
    next: str


def conclude(found: Examination) -> Verdict:
    """What the facts mean."""
    usable = [state for state in found.backends if state.usable]
    if not usable:
        best = [s for s in found.backends if s.alias == ("trt" if found.machine.gpus else "cpu")]
        return Verdict(False, "No backend can run here.", (best or list(found.backends))[0].install)
    if found.bundle is None:
        runs = " and ".join(f"{state.name} ({state.detail})" for state in usable)
        export = "ltx-export onnx CHECKPOINT --text-encoder DIR --output bundle"
        return Verdict(True, f"This machine can run bundles, with {runs}.", export)
    return _of_bundle(found, found.bundle)


def _of_bundle(found: Examination, bundle: BundleState) -> Verdict:
    for name in bundle.needed:
        if name in bundle.missing:
            purpose, command = bundle.missing[name]
            return Verdict(False, f"The bundle has no {name}, {purpose}.", command)
        export = (
            f"ltx-export onnx CHECKPOINT --component {name} --precision fp32 --output {quote(bundle.path)}"
        )
        return Verdict(False, f"This machine cannot run {name}: {bundle.refused[name]}.", export)
    place = next((s.detail for s in found.backends if s.name == bundle.backend), "")
    text = f"This machine runs the bundle with {bundle.backend} ({place})."
    run = f'ltx-run --bundle {quote(bundle.path)} --prompt "{PROMPT}" --output video.mp4'
    if found.machine.gpus and bundle.passed_over:
        name, reason = next(iter(bundle.passed_over.items()))
        text += f" A faster backend, {name}, does not: {reason}."
        run = _faster(found.backends, bundle, name) or run
    return Verdict(True, text, run)


def _faster(backends: Sequence[BackendState], bundle: BundleState, name: str) -> str:
    """The command that makes a faster backend usable, "" if there is none to tell."""
    state = next(s for s in backends if s.name == name)
    if None in state.packages.values():
        return state.install
    if state.usable:
        build = f"ltx-export build-engines --bundle {quote(bundle.path)} --backend {name}"
        return f"{build} --profile {bundle.profile}"
    return ""


def lines(found: Examination, also: Sequence[str] = ()) -> Iterator[str]:
    """The whole report for people; `also` are sentences to the verdict."""
    yield from _section("machine", _machine(found.machine))
    yield from _section("backends", [(_label(s), _state(s)) for s in found.backends])
    if found.bundle is not None:
        yield from _section(f"bundle {found.bundle.path}", _bundle(found.bundle))
    end = conclude(found)
    yield "verdict"
    yield f"  {end.text}"
    yield from (f"  {sentence}" for sentence in also)
    yield "next"
    yield f"  {end.next}"


def _section(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield title
    width = max(len(label) for label, _ in rows)
    yield from (f"  {label:{width}}  {text}".rstrip() for label, text in rows)


def _machine(machine: Machine) -> list[tuple[str, str]]:
    version = f"ltxrt {machine.ltxrt or 'not installed'}, Python {machine.python}, {machine.system}"
    cores = "" if machine.cores is None else f", {machine.cores} cores"
    memory = machine.memory
    if memory is None:
        amount = "unknown: pip install psutil"
    else:
        limit = "" if memory.limit is None else f"; this container may use {memory_size(memory.limit)}"
        amount = f"{memory_size(memory.total)}, {memory_size(memory.available)} available{limit}"
    disk = (
        "unknown"
        if machine.disk_free is None
        else f"{file_size(machine.disk_free)} free in {machine.disk_path}"
    )
    gpus = [
        (
            f"GPU {g.index}",
            f"{g.name} ({g.architecture}), {memory_size(g.total)}, {memory_size(g.free)} free, "
            f"driver {g.driver}",
        )
        for g in machine.gpus
    ]
    return [
        ("system", version),
        ("processor", f"{machine.processor}{cores}"),
        ("memory", amount),
        ("disk", disk),
        *(gpus or [("GPU", "none that NVIDIA's driver shows")]),
    ]


def _label(state: BackendState) -> str:
    return state.name if state.alias is None else f"{state.name} ({state.alias})"


def _state(state: BackendState) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in state.packages.items() if version)
    if state.usable:
        return f"usable: {state.detail}" + f"; {versions}" * bool(versions)
    return f"not usable: {state.detail}" + f"; there is {versions}" * bool(versions)


def _bundle(bundle: BundleState) -> list[tuple[str, str]]:
    rows = [("model", f"{bundle.model} {bundle.version}, {file_size(bundle.bytes)}")]
    for name, precisions in bundle.components.items():
        runs = bundle.precisions.get(name)
        also = f"; {runs} runs on {bundle.backend}" if runs and len(precisions) > 1 else ""
        refused = f"; {bundle.refused[name]}" if name in bundle.refused else ""
        rows.append((name, ", ".join(precisions) + also + refused))
    rows += [(name, f"missing ({purpose}); add it: {how}") for name, (purpose, how) in bundle.missing.items()]
    rows += [("engine", line) for line in bundle.engines] or [
        ("engines", "none; TensorRT takes engines, the other backends graphs")
    ]
    rows.append(("parity", _parity(bundle)))
    return rows


def _parity(bundle: BundleState) -> str:
    if not bundle.unverified:
        return f"verified against torch on {bundle.backend}"
    check = f"ltx-parity check --bundle {quote(bundle.path)} --checkpoint CHECKPOINT"
    which = "nothing" if set(bundle.unverified) == set(bundle.precisions) else "not"
    names = "" if which == "nothing" else f": {', '.join(bundle.unverified)}"
    return f"{which} verified against torch on {bundle.backend}{names}; where torch is: {check}"
