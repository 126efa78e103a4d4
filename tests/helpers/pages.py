"""What pages of the documentation show to be run: commands in indented or fenced blocks, Python in fences."""

import importlib
import re
import shlex
import textwrap
from dataclasses import dataclass

import click

from ltxrt.export import cli as export_cli
from ltxrt.parity import cli as parity_cli
from ltxrt.runtime import cli as runtime_cli

COMMANDS = {"ltx-run": runtime_cli.main, "ltx-export": export_cli.main, "ltx-parity": parity_cli.main}
OTHERS = ("pip", "make", "docker", "polygraphy", "hadolint", "git", "mkdocs", "eval")
PROGRAM = re.compile(rf"(?:\$ )?((?:[A-Z_]+=\S* )*(?:{'|'.join([*COMMANDS, *OTHERS, 'python'])})(?=\s).*)")
BLOCK = re.compile(
    r"^```(?P<language>\w*)[^\n]*\n(?P<fenced>.*?)^```$|(?P<indented>(?:^(?: {4}|\t)[^\n]*\n|^\n(?=    ))+)",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Shown:
    """A piece of a page that a reader runs: one command line, or one block of Python."""

    language: str
    text: str

    @property
    def words(self):
        return shlex.split(self.text, comments=True)


def shown(markdown):
    """Everything that a page shows to be run, in its order. Continued lines are joined."""
    for block in BLOCK.finditer(markdown):
        if block["language"] == "python":
            yield Shown("python", block["fenced"])
            continue
        if block["fenced"] is not None and block["language"] not in ("", "sh", "bash", "console", "shell"):
            continue
        text = block["fenced"] if block["fenced"] is not None else textwrap.dedent(block["indented"])
        for line in text.replace("\\\n", " ").splitlines():
            if found := PROGRAM.fullmatch(line.strip()):
                yield Shown("shell", " ".join(found[1].split("  #")[0].split()))


def resolved(words):
    """The click command that a line runs, and what is left of the line."""
    if words[:2] == ["python", "-m"]:
        command, rest = importlib.import_module(words[2]).main, words[3:]
    else:
        command, rest = COMMANDS[words[0]], words[1:]
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest
