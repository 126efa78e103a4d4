"""What Windows does not have is used nowhere that a deployment reaches. Not verified on Windows itself.

`make types` checks the same by types, for the whole of engines, export and runtime.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HELPERS = ROOT / "tests" / "helpers"
OTHERS = "av, click, numpy, onnx, onnxruntime, PIL.Image, psutil, rich.progress, tokenizers, yaml"


def on_windows(code, *arguments):
    """What `code` prints last, as JSON, in a process without what POSIX alone has."""
    begin = f"import sys, {OTHERS}\nsys.path.insert(0, {str(HELPERS)!r})\nimport windows\nwindows.hide()\n"
    command = [sys.executable, "-c", begin + textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_deployment_module_loads():
    files = [p.relative_to(ROOT) for folder in ("engines", "runtime") for p in (ROOT / folder).rglob("*.py")]
    names = sorted(".".join(("ltxrt", *p.with_suffix("").parts)) for p in files if p.stem != "__init__")
    code = f"""
        import importlib, json
        print(json.dumps([importlib.import_module(name).__name__ for name in {names!r}]))
        """
    assert on_windows(code) == names


def test_a_video_is_made_and_saved(tiny_bundle, tmp_path):
    code = """
        import json
        from pathlib import Path
        from ltxrt import Pipeline
        folder = Path(sys.argv[2])
        old = folder / ".v.0123abcd.mp4"
        old.touch()
        os = __import__("os"); os.utime(old, (0, 0))
        video = Pipeline(sys.argv[1])("fog", height=64, width=96, num_frames=9, steps=2)
        for name in ("v.mp4", "v.gif", "frames"):
            video.save(folder / name)
        print(json.dumps(sorted(path.name for path in folder.iterdir())))
        """
    assert on_windows(code, tiny_bundle("0.9.5"), tmp_path) == ["frames", "v.gif", "v.mp4"]


def test_the_command_makes_a_video(tiny_bundle, tmp_path):
    code = """
        import json
        from ltxrt.runtime.cli import main
        output = sys.argv[2]
        main(["--bundle", sys.argv[1], "--backend", "onnxruntime", "--prompt", "fog", "--output", output,
              "--height=64", "--width=96", "--num-frames=9", "--steps=2"], standalone_mode=False)
        print(json.dumps(True))
        """
    assert on_windows(code, tiny_bundle("0.9.5"), tmp_path / "v.mp4")
    assert (tmp_path / "v.mp4").stat().st_size > 1000


LOCKS = """
    import json
    from pathlib import Path
    from threading import Thread
    from ltxrt.engines.errors import BundleError
    from ltxrt.engines.storage import locks
    folder, found = Path(sys.argv[1]), []

    def take(kind):
        try:
            with kind(folder):
                found.append("taken")
        except BundleError as error:
            found.append(str(error))

    def elsewhere(kind):
        thread = Thread(target=take, args=(kind,))
        thread.start()
        thread.join()
        return found.pop()

    with getattr(locks, sys.argv[2])(folder):
        inside = elsewhere(getattr(locks, sys.argv[3]))
    print(json.dumps([inside, elsewhere(locks.writing)]))
    """


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ("writing", "writing", False),
        ("writing", "reading", False),
        ("reading", "writing", False),
        ("reading", "reading", True),
    ],
)
def test_a_writer_is_alone_and_readers_are_not(tmp_path, first, second, taken):
    inside, afterwards = on_windows(LOCKS, tmp_path, first, second)
    assert inside == "taken" if taken else "another command is using this bundle" in inside
    assert afterwards == "taken"
