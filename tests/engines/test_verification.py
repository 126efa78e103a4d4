import json
import os

import pytest

from ltxrt.engines import verification
from ltxrt.engines.bundle import read_bundle

PRECISIONS = {"text_encoder": "fp32", "transformer": "fp32"}


@pytest.fixture
def proved(bundle):
    """The bundle with a report of its graphs."""
    path = bundle.root / verification.REPORT
    path.parent.mkdir()
    checks = [
        {"component": name, "precision": "fp32", "backend": "onnxruntime", "status": "passed"}
        for name in PRECISIONS
    ]
    graphs = {f"{n}.fp32": verification.identity(bundle.components[n]["fp32"]) for n in PRECISIONS}
    path.write_text(json.dumps({"checks": checks, "graphs": graphs}))
    return bundle


def change(bundle, function):
    path = bundle.root / verification.REPORT
    data = json.loads(path.read_text())
    function(data)
    path.write_text(json.dumps(data))


def test_a_passing_report_proves(proved):
    assert verification.unproved(proved, "onnxruntime", PRECISIONS) == []


def test_another_backend_is_not_proved(proved):
    assert verification.unproved(proved, "tensorrt", PRECISIONS) == list(PRECISIONS)


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_only_a_pass_proves(proved, status):
    change(proved, lambda data: data["checks"][0].update(status=status))
    assert verification.unproved(proved, "onnxruntime", PRECISIONS) == ["text_encoder"]


def test_a_report_of_another_export_proves_nothing(proved):
    change(proved, lambda data: data["graphs"].update({"transformer.fp32": "0" * 64}))
    assert verification.unproved(proved, "onnxruntime", PRECISIONS) == ["transformer"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"checks": 3}', '{"checks": [{}], "graphs": {}}', "null", "[" * 100_000]
)
def test_what_cannot_be_read_proves_nothing(proved, text):
    (proved.root / verification.REPORT).write_text(text)
    assert verification.unproved(proved, "onnxruntime", PRECISIONS) == list(PRECISIONS)
    (proved.root / verification.REPORT).unlink()
    assert verification.unproved(proved, "onnxruntime", PRECISIONS) == list(PRECISIONS)


def test_a_pipe_in_place_of_the_report_proves_nothing_and_is_not_waited_for(proved):
    (proved.root / verification.REPORT).unlink()
    os.mkfifo(proved.root / verification.REPORT)
    assert verification.unproved(proved, "onnxruntime", PRECISIONS) == list(PRECISIONS)


def test_a_report_that_was_read_before_the_work_is_not_read_again(proved):
    report = verification.read(proved)
    (proved.root / verification.REPORT).write_text("{")
    assert verification.unproved(proved, "onnxruntime", PRECISIONS, report) == []


def test_the_identity_is_of_graph_and_weights(bundle):
    import dataclasses

    graph = read_bundle(bundle.root).components["text_encoder"]["fp32"]
    other = dataclasses.replace(graph, data=(dataclasses.replace(graph.data[0], sha256="1" * 64),))
    assert verification.identity(graph) != verification.identity(other)
