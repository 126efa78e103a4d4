import json
import os

import pytest

from ltxrt.engines import evidence
from ltxrt.engines.bundle import read_bundle

PRECISIONS = {"text_encoder": "fp32", "transformer": "fp32"}


@pytest.fixture
def proved(bundle):
    """The bundle with a report of its graphs."""
    path = bundle.root / evidence.REPORT
    path.parent.mkdir()
    checks = [
        {"component": name, "precision": "fp32", "backend": "onnxruntime", "status": "passed"}
        for name in PRECISIONS
    ]
    graphs = {f"{n}.fp32": evidence.identity(bundle.components[n]["fp32"]) for n in PRECISIONS}
    path.write_text(json.dumps({"checks": checks, "graphs": graphs}))
    return bundle


def change(bundle, function):
    path = bundle.root / evidence.REPORT
    data = json.loads(path.read_text())
    function(data)
    path.write_text(json.dumps(data))


def test_a_passing_report_proves(proved):
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS) == []


def test_another_backend_is_not_proved(proved):
    assert evidence.unproved(proved, "tensorrt", PRECISIONS) == list(PRECISIONS)


@pytest.mark.parametrize("status", ["failed", "skipped"])
def test_only_a_pass_proves(proved, status):
    change(proved, lambda data: data["checks"][0].update(status=status))
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS) == ["text_encoder"]


def test_a_report_of_another_export_proves_nothing(proved):
    change(proved, lambda data: data["graphs"].update({"transformer.fp32": "0" * 64}))
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS) == ["transformer"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"checks": 3}', '{"checks": [{}], "graphs": {}}', "null", "[" * 100_000]
)
def test_what_cannot_be_read_proves_nothing(proved, text):
    (proved.root / evidence.REPORT).write_text(text)
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS) == list(PRECISIONS)
    (proved.root / evidence.REPORT).unlink()
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS) == list(PRECISIONS)


def test_a_pipe_in_place_of_the_report_proves_nothing_and_is_not_waited_for(proved):
    (proved.root / evidence.REPORT).unlink()
    os.mkfifo(proved.root / evidence.REPORT)
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS) == list(PRECISIONS)


def test_a_report_that_was_read_before_the_work_is_not_read_again(proved):
    report = evidence.read(proved)
    (proved.root / evidence.REPORT).write_text("{")
    assert evidence.unproved(proved, "onnxruntime", PRECISIONS, report) == []


def test_the_identity_is_of_graph_and_weights(bundle):
    import dataclasses

    graph = read_bundle(bundle.root).components["text_encoder"]["fp32"]
    other = dataclasses.replace(graph, data=(dataclasses.replace(graph.data[0], sha256="1" * 64),))
    assert evidence.identity(graph) != evidence.identity(other)
