"""Exports and descriptions of checkpoints that are named on a hub."""

import json
import re

import hub_server
import pytest
from click.testing import CliRunner
from hub_server import FILE, LTX, T5, TWO_PASS_FILE, UPSAMPLER
from huggingface_hub import constants

from ltxrt.engines.bundle import read_bundle
from ltxrt.export import families
from ltxrt.export.cli import main
from ltxrt.export.hub.locating import Wanted, locate

NEEDED = {"text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/tokenizer.json"}


def located(checkpoint, **wanted):
    """What `locate` gives, the progress it reports and the lines it says."""
    progress, lines = [], []
    sources = wanted.pop("sources", {})
    return locate(Wanted(checkpoint, sources, **wanted), progress.append, lines.append), progress, lines


def test_a_checkpoint_comes_with_its_text_encoder_and_nothing_else(hub):
    found, _, lines = located(f"{LTX}:{FILE}")
    assert found.checkpoint.name == FILE and found.checkpoint.stat().st_size > 100_000
    assert set(hub.downloads()) == {FILE, *NEEDED}
    checkpoint = families.open_checkpoint(found.checkpoint, **found.sources)
    assert checkpoint.version.name == "0.9.6-dev" and checkpoint.version.certain
    assert "text_encoder" in checkpoint.parts
    assert (
        checkpoint.source
        == f"{LTX}@{hub_server.COMMIT[:12]}:{FILE}, text encoder from {T5}@{hub_server.COMMIT[:12]}"
    )
    text = "\n".join(lines)
    assert "LTX-Video weights under" in text and f"licence of {T5}: other: {hub.address}/{T5}" in text
    assert re.search(rf"{FILE}, [\d.]+ [kM]B", text) and "free" in text


def test_the_progress_of_a_download_is_in_bytes_and_ends_at_the_files_size(hub, repositories):
    _, progress, _ = located(f"{LTX}:{FILE}")
    size = (repositories[LTX] / FILE).stat().st_size
    of_file = [p for p in progress if p.stage == f"downloading {FILE}"]
    assert of_file[0].done == 0 and of_file[-1].done == size
    assert {(p.total, p.unit) for p in of_file} == {(size, "byte")}
    assert [p.done for p in of_file] == sorted(p.done for p in of_file)


def test_sizes_and_licence_are_said_before_anything_large_travels(hub):
    before = []
    locate(Wanted(f"{LTX}:{FILE}", {}), lambda _: None, lambda _: before.append(hub.downloads()))
    assert before and not any(FILE in names for names in before)


def test_a_two_pass_release_comes_with_its_upsampler(hub):
    found, _, _ = located(f"{LTX}:{TWO_PASS_FILE}")
    assert [path.name for path in found.sources["upsamplers"]] == [UPSAMPLER]
    assert UPSAMPLER in hub.downloads()


@pytest.mark.parametrize(
    ("components", "sources"),
    [
        (("transformer",), set()),
        (("latent_upsampler",), {"upsamplers"}),
        (("text_encoder",), {"text_encoder"}),
    ],
)
def test_only_what_the_chosen_components_take_is_downloaded(hub, components, sources):
    found, _, _ = located(f"{LTX}:{TWO_PASS_FILE}", components=components)
    assert set(found.sources) == sources


def test_a_given_part_replaces_the_one_of_the_hub(hub, tiny_checkpoint):
    folder = tiny_checkpoint("0.9.6-dev") / "t5"
    found, _, _ = located(f"{LTX}:{FILE}", sources={"text_encoder": folder})
    assert found.sources == {"text_encoder": folder}
    assert hub.downloads() == [FILE]


def test_a_part_of_the_hub_goes_with_a_file_of_this_machine(hub, tiny_checkpoint):
    file = tiny_checkpoint("0.9.6-dev") / "model.safetensors"
    found, _, _ = located(str(file), sources={"text_encoder": T5, "upsamplers": (f"{LTX}:{UPSAMPLER}",)})
    assert found.checkpoint == file
    assert set(hub.downloads()) == {*NEEDED, UPSAMPLER}


def test_the_checkpoints_own_repository_is_asked_first(hub, repositories):
    (repositories[T5] / "text_encoder").rename(repositories[LTX] / "text_encoder")
    (repositories[T5] / "tokenizer").rename(repositories[LTX] / "tokenizer")
    found, _, _ = located(f"{LTX}:{FILE}")
    assert not any(T5 in line for line in hub.requests)
    assert found.sources["text_encoder"] == found.checkpoint.parent


def test_what_is_in_the_cache_is_not_downloaded_again(hub):
    first, _, _ = located(f"{LTX}:{FILE}")
    hub.requests.clear()
    again, progress, lines = located(f"{LTX}:{FILE}")
    assert again == first and hub.downloads() == []
    assert not [p for p in progress if p.stage.startswith("downloading")]
    assert any("in the cache" in line for line in lines)


def test_a_download_that_broke_off_is_finished_by_the_next_run(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.cut.add(FILE)
    with pytest.raises(Exception, match=FILE):
        located(f"{LTX}:{FILE}", components=("transformer",))
    hub.cut.clear()
    assert located(f"{LTX}:{FILE}", components=("transformer",))[0].checkpoint.is_file()


def test_an_interrupted_download_leaves_no_part_of_a_file(hub, cache):
    def interrupted(progress):
        if progress.stage == f"downloading {FILE}" and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate(Wanted(f"{LTX}:{FILE}", {}), interrupted, lambda _: None)
    assert [path for path in cache.rglob("*") if "incomplete" in path.name] == []
    assert located(f"{LTX}:{FILE}")[0].checkpoint.is_file()


def test_a_revision_is_pinned(hub):
    found, _, _ = located(f"{LTX}@v1:{FILE}", components=("transformer",))
    assert hub_server.COMMIT in found.checkpoint.parts


@pytest.mark.parametrize("connection", ["none", "offline mode"])
def test_without_a_connection_the_cache_serves(hub, cache, monkeypatch, connection):
    found, _, _ = located(f"{LTX}:{FILE}")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    if connection == "offline mode":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert located(f"{LTX}:{FILE}")[0] == found


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{LTX}:ltxv-2b-0.9.6-dev-04-26.safetensors", rf"no such file; there are {FILE}"),
        (LTX, rf"holds several checkpoints; name one, as in {LTX}:ltxv-2b.*{TWO_PASS_FILE}"),
        (f"{LTX}@v9:{FILE}", "has no branch, tag or commit 'v9'; leave it out"),
        (
            "Lightricks/LTX-Vide",
            r"is neither a file or folder here nor a repository on http.*did you mean Lightricks/LTX-Video",
        ),
        ("nobody/nothing", "check the name. If it is private, log in with: hf auth login"),
        ("private/model", "log in with: hf auth login"),
        (f"{LTX}:../x", "must be a file or folder of the repository"),
        ("https://example.org/a/b", "is no page of a model on the hub; give OWNER/NAME:FILE"),
        (f"{T5}:transformer/diffusion_pytorch_model.safetensors", "is not a safetensors file"),
    ],
)
@pytest.mark.parametrize("command", [["onnx", "--output", "never"]])
def test_a_name_that_is_not_there_gets_one_line(hub, tmp_path, monkeypatch, command, name, message):
    monkeypatch.chdir(tmp_path)
    result = run(*command, name)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert re.search(message, line), line
    assert not (tmp_path / "never").exists()


def test_a_gated_repository_says_how_to_get_in(hub):
    hub.gated.add(LTX)
    result = run("onnx", f"{LTX}:{FILE}", "--output", "never")
    assert result.exit_code == 2
    assert (
        f"is gated: accept its terms on {hub.address}/{LTX} and log in with: hf auth login" in result.output
    )


def test_no_connection_and_no_copy_is_one_line_and_status_1(cache, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    result = run("onnx", f"{LTX}:{FILE}", "--output", "never")
    assert result.exit_code == 1
    line = result.output.splitlines()[-1]
    assert line.startswith(
        f"error: {LTX}:{FILE}: http://127.0.0.1:9 cannot be reached and the cache has no copy"
    )


def test_a_download_that_does_not_fit_is_refused_before_it_begins(hub, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1000))
    result = run("onnx", f"{LTX}:{FILE}", "--output", "never")
    assert result.exit_code == 1 and "make room, or set HF_HOME" in result.output
    assert FILE not in hub.downloads()


def test_the_bundle_of_a_named_checkpoint_records_its_commit(hub, tmp_path, kept_traces):
    result = run("onnx", f"{LTX}:{FILE}", "--component", "vae_decoder", "--output", tmp_path / "b")
    assert result.exit_code == 0, result.output
    assert read_bundle(tmp_path / "b").source["checkpoint"] == f"{LTX}@{hub_server.COMMIT[:12]}:{FILE}"
    assert json.loads((tmp_path / "b" / "bundle.json").read_text())["version"] == "0.9.6-dev"
