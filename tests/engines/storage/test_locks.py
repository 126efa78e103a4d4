"""Two commands and one bundle: none is lost, the second hears of it, a killed one holds nothing."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace

import pytest

from ltxrt.engines import bundle as bundles
from ltxrt.engines.bundle import add_to_bundle, read_bundle, reading_bundle, write_bundle
from ltxrt.engines.errors import BundleError
from ltxrt.engines.storage import locks, system

REFUSED = "another command is using this bundle .* wait until it has ended"


def elsewhere(function, *arguments):
    """Call in another thread, which holds no lock of this one; what it raised."""
    raised = []

    def call():
        try:
            function(*arguments)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


def take(kind, folder):
    with kind(folder):
        pass


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (locks.writing, locks.writing, True),
        (locks.writing, locks.reading, True),
        (locks.reading, locks.writing, True),
        (locks.reading, locks.reading, False),
    ],
)
def test_a_writer_is_alone_and_readers_are_not(tmp_path, first, second, refused):
    with first(tmp_path):
        error = elsewhere(take, second, tmp_path)
    assert isinstance(error, BundleError) if refused else error is None
    assert elsewhere(take, second, tmp_path) is None, "nothing is held afterwards"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_writer_s_own_steps_take_the_lock_again(bundle):
    with locks.writing(bundle.root):
        write_bundle(bundle.root, bundle)
        with reading_bundle(bundle.root) as again:
            assert again == bundle
        error = elsewhere(write_bundle, bundle.root, bundle)
    with pytest.raises(BundleError, match=REFUSED):
        raise error
    write_bundle(bundle.root, bundle)


def test_of_two_who_add_a_component_at_once_one_is_refused_and_none_is_lost(
    bundle, manifest, put_graph, monkeypatch
):
    """The second comes while the first has read the manifest and not yet written it."""
    graphs = {p: put_graph(bundle.root, "transformer", p) for p in ("fp16", "bf16")}
    additions = {p: replace(manifest, components={"transformer": {p: graphs[p]}}) for p in graphs}
    errors = []

    def merge(root, old, new):
        if not errors:
            errors.append(None)
            errors[0] = elsewhere(add_to_bundle, bundle.root, additions["bf16"])
        return bundles_merge(root, old, new)

    bundles_merge = bundles.merge
    monkeypatch.setattr(bundles, "merge", merge)
    add_to_bundle(bundle.root, additions["fp16"])
    with pytest.raises(BundleError, match=REFUSED):
        raise errors[0]
    assert list(read_bundle(bundle.root).components["transformer"]) == ["fp32", "fp16"]
    add_to_bundle(bundle.root, additions["bf16"])
    assert list(read_bundle(bundle.root).components["transformer"]) == ["fp32", "fp16", "bf16"]


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import sys, pathlib\nfrom ltxrt.engines.storage import locks\n"
        "with locks.writing(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BundleError, match=REFUSED):
            take(locks.writing, tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    take(locks.writing, tmp_path)


def test_a_forked_child_does_not_hold_its_parent_s_lock(tmp_path):
    reading, writing = os.pipe()
    with ExitStack() as stack:
        stack.enter_context(locks.writing(tmp_path))
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)  # until the parent is done
            os._exit(0)
    os.close(reading)
    try:
        assert elsewhere(take, locks.writing, tmp_path) is None
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def without(_descriptor, _kind):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(system.fcntl, "flock", without)
    with pytest.raises(BundleError, match=r"cannot be locked \(Operation not supported\).* local disk"):
        take(locks.writing, tmp_path)
