"""A parity report that shows everything, and its page read by a parser."""

import dataclasses
import math
from html.parser import HTMLParser

from ltxrt.parity.check.results import Call, Check, Culprit, EndToEnd, Metrics, Report, Tolerance
from ltxrt.parity.report import render

VOID = {"meta", "img"}
STEPS = 4
SIZE = "512x704x97"


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
