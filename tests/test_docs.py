"""The commands that README and docs show, and the options that messages name, are the ones there are."""

import ast
import importlib
import re
from pathlib import Path

import click
import pages
import pytest

from ltxrt.engines import bundle
from ltxrt.export import cli as export_cli
from ltxrt.export import write as build
from ltxrt.export.graph import trace
from ltxrt.parity import cli as parity_cli
from ltxrt.runtime import cli as runtime_cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {"ltx-run": runtime_cli.main, "ltx-export": export_cli.main, "ltx-parity": parity_cli.main}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Of other programs: pip's, polygraphy's, pytest's, docker's.
FOREIGN = {
    f"--{name}" for name in ("upgrade", "force-reinstall", "compare", "onnxrt", "user", "gpus", "init")
}
FOREIGN |= {"--load-inputs", "--load-outputs", "--data-loader-script"}


def options(command):
    """Every option of a command and of its subcommands."""
    found = {"--help"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    for below in getattr(command, "commands", {}).values():
        found |= options(below)
    return found


def shown(page):
    """The words of each command of ours that a page shows."""
    for piece in pages.shown(page.read_text(encoding="utf-8")):
        if piece.language == "shell" and re.match(r"ltx-|python -m ltxrt", piece.text):
            yield piece.words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_they_are_shown_with(page):
    for words in shown(page):
        command, rest = pages.resolved(words)
        given = {word.split("=")[0] for word in rest if word.startswith("--")}
        assert given <= options(command), words
        if isinstance(command, click.Group) and not command.invoke_without_command:
            raise AssertionError(f"{words} runs no subcommand")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_text_are_of_some_command(page):
    text = " ".join(re.findall(r"`[^`]*`", page.read_text(encoding="utf-8")))
    assert set(FLAG.findall(text)) - FOREIGN <= every_option()


def every_option():
    modules = ["bench.__main__", "calibrate", "demo", "fuzz", "gpu"]
    modules += [f"proofs.{name}" for name in ("baseline", "full_size", "hashing", "kills", "tiled_memory")]
    mains = [importlib.import_module(f"ltxrt.parity.{name}") for name in modules]
    found = set().union(*(options(command) for command in COMMANDS.values()))
    return found.union(*(options(module.main) for module in mains if hasattr(module, "main")))


def test_options_that_messages_name_are_of_some_command():
    known = every_option() | FOREIGN
    folders = ("api", "engines", "export", "parity", "runtime")  # an example's own command is not one of ours
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "var(--" not in node.value:
                assert set(FLAG.findall(node.value)) <= known, (path, node.value)


# What a message may propose to run, options and all.
COMMAND_LINE = re.compile(r"\b(ltx-(run|export|parity)|pip install|python -m)\b")
PIECE = re.compile(r"(\s*--[a-z-]+( [A-Z]+)?\s*)+")  # of which a command line is put together


def texts(tree):
    """The strings of a module, each with all its parts and what is put in left out; no docstrings."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            inside.add(node.body[0].value)
        if isinstance(node, ast.JoinedStr):
            parts = [n for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            inside |= set(parts)
            yield "".join(part.value for part in parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.value


def flags_of_messages(source):
    """The options that strings of a module name outside of a whole command line."""
    for text in filter(lambda text: not PIECE.fullmatch(text), texts(ast.parse(source))):
        line = COMMAND_LINE.search(text)
        yield from FLAG.findall(text[: line.start()] if line else text)


LIBRARY = [
    path
    for folder in ("engines", "export", "runtime")
    for path in sorted((ROOT / folder).rglob("*.py"))
    # The help of options names others.
    if path.stem not in ("cli", "cli_base", "options", "fields") and path.parent != ROOT / "runtime/cli"
]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_message_of_the_library_names_fields_and_no_options(path):
    """A Python or an HTTP user has none; `cli_base.called` puts in a command's options."""
    assert list(flags_of_messages(path.read_text(encoding="utf-8"))) == []


def test_an_option_in_a_message_is_seen():
    planted = '''"""--docstring"""
def f(x):
    raise InputError(f"{x}: give --height or " "more" + "a --width")
HINT = f"run ltx-export onnx --vae {x}" "--strip"
'''
    assert sorted(flags_of_messages(planted)) == ["--height", "--width"]


PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*\.(?:py|md)")


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_that_pages_name_exist(page):
    """In backticks from the repository's root or by the name alone, in links from the page's folder."""
    text = page.read_text(encoding="utf-8")
    folders = ("docs", "engines", "export", "parity", "runtime", "tests")
    known = {path.name for folder in folders for path in (ROOT / folder).rglob("*.*")}
    words = [word for code in re.findall(r"`([^`\n]+)`", text) for word in PATH.findall(code)]
    missing = [word for word in words if not (ROOT / word).exists() and word not in known]
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert missing + [target for target in targets if not (page.parent / target).exists()] == []


MESSAGES = ROOT / "docs" / "troubleshooting.md"


def quoted_messages(page):
    """The pieces between … of each message in the first column of a table."""
    for message in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE):
        yield [piece.strip() for piece in message.split("…") if piece.strip()]


def test_messages_that_troubleshooting_explains_are_ones_that_there_are():
    strings = set()
    for folder in ("engines", "export", "parity", "runtime"):
        for path in (ROOT / folder).rglob("*.py"):
            strings |= set(texts(ast.parse(path.read_text(encoding="utf-8"))))
    messages = list(quoted_messages(MESSAGES.read_text(encoding="utf-8")))
    known = "\n".join(strings)
    assert len(messages) > 20
    assert [pieces for pieces in messages if not all(piece in known for piece in pieces)] == []
    assert list(quoted_messages("| `no … of such` | x |\n")) == [["no", "of such"]]


def test_precisions_are_the_same_everywhere():
    assert set(bundle.PRECISIONS) == {*trace.PRECISIONS, *build.BASE} == set(export_cli.PRECISIONS)


def test_a_wrong_option_is_seen(tmp_path):
    """That the pages are read at all, and that what reads them can fail."""
    assert sum(1 for page in PAGES for _ in shown(page)) > 20
    (tmp_path / "page.md").write_text("    ltx-run --bundle b \\\n      --nosuch x  # --none\n")
    with pytest.raises(AssertionError):
        test_commands_have_the_options_they_are_shown_with(tmp_path / "page.md")
    (words,) = shown(tmp_path / "page.md")
    assert words == ["ltx-run", "--bundle", "b", "--nosuch", "x"]
    (tmp_path / "page.md").write_text("`engines/none.py` and [a link](none.md)")
    with pytest.raises(AssertionError, match=r"'engines/none.py', 'none.md'"):
        test_files_that_pages_name_exist(tmp_path / "page.md")
