"""The code's measures, and its limits.

    python .ci/measure.py                   print what the packages measure
    python .ci/measure.py --request BUNDLE  and which files one small text-to-video request enters
    python .ci/measure.py --check           check the limits, as `make lint` does

A function's length is in lines, from `def` to the last one, with the functions nested in it; these are
counted by themselves as well. Standard library only, except that `--request` runs ltxrt.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

PACKAGES = ("api", "engines", "export", "parity", "runtime")
CHECKED = (*PACKAGES, "examples", "tests")
MAX_FILES, MAX_LINES, MAX_FUNCTION, MAX_PARAMETERS = 16, 400, 60, 7
# A folder, a file, or a file and a function → why it may exceed a limit.
EXCEPTIONS = {
    "export/ltxv/models/transformer.py:forward": "its parameters are the graph's inputs, which are eight",
    "engines/tensorrt/build.py:build": "to be divided: backend, target, profiles and options belong together",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


@dataclass(frozen=True)
class Source:
    """A file of Python: its path from the root, its number of lines, its syntax tree."""

    path: Path
    lines: int
    tree: ast.Module

    @property
    def functions(self) -> list[Function]:
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]

    @property
    def public(self) -> list[str]:
        """Functions and classes of the module whose names begin with no underscore."""
        named = (node.name for node in self.tree.body if isinstance(node, Function | ast.ClassDef))
        return [name for name in named if not name.startswith("_")]

    @property
    def declared(self) -> dict[str, list[str]]:
        """What the package's `__all__` has, by module; [""] for a whole module, or a name of the package."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node.targets[0]):
                if not isinstance(node.value, ast.Call):
                    return {name: [""] for name in ast.literal_eval(node.value)}
                whole = {word: [""] for arg in node.value.args[1:] for word in ast.literal_eval(arg).split()}
                return whole | {str(k.arg): ast.literal_eval(k.value).split() for k in node.value.keywords}
        return {}


def sources(root: Path, folders: tuple[str, ...] = PACKAGES) -> list[Source]:
    """Every file of Python in the folders, sorted."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    texts = [(path.relative_to(root), path.read_text(encoding="utf-8")) for path in paths]
    return [Source(path, len(text.splitlines()), ast.parse(text)) for path, text in texts]


def length(function: Function) -> int:
    """Lines from `def` to the last line of the body; decorators are not counted."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> list[ast.arg]:
    """All parameters but a method's own `self` or `cls`."""
    given = function.args
    names = [*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg]
    return [name for i, name in enumerate(names) if name and not (i == 0 and name.arg in ("self", "cls"))]


def nesting(node: ast.AST) -> int:
    """How many blocks of control flow stand inside each other; what a nested function holds is its own."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef | ast.Lambda):
            # `elif` is an If in the orelse of an If, and is not deeper
            chained = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
            deepest = max(deepest, nesting(child) + (isinstance(child, BLOCKS) and not chained))
    return deepest


def annotated(function: Function) -> bool:
    """Whether every parameter and the result have a type."""
    return function.returns is not None and all(name.annotation for name in parameters(function))


def files_per_folder(files: list[Source]) -> dict[Path, int]:
    folders = [file.path.parent for file in files]
    return {folder: folders.count(folder) for folder in sorted(set(folders))}


def violations(files: list[Source]) -> Iterator[tuple[str, str]]:
    """(what exceeds a limit, as in EXCEPTIONS; the limit) for all of them."""
    for folder, count in files_per_folder(files).items():
        if count > MAX_FILES:
            yield str(folder), f"{count} Python files; at most {MAX_FILES} in a folder: make packages of them"
    for file in files:
        if file.lines > MAX_LINES:
            yield str(file.path), f"{file.lines} lines; at most {MAX_LINES} in a file: divide it"
        for function in file.functions:
            where, lines, given = f"{file.path}:{function.name}", length(function), len(parameters(function))
            if lines > MAX_FUNCTION:
                yield where, f"{lines} lines; at most {MAX_FUNCTION} in a function"
            if given > MAX_PARAMETERS and file.path.parts[0] != "tests":  # pytest's fixtures are parameters
                yield where, f"{given} parameters; at most {MAX_PARAMETERS}"


def check(files: list[Source], exceptions: dict[str, str]) -> list[str]:
    """One line for each violation without exception, and for each exception that is needed no more."""
    found = list(violations(files))
    lines = [f"{where}: {limit}" for where, limit in found if where not in exceptions]
    unused = sorted(set(exceptions) - {where for where, _ in found})
    return lines + [f"{where}: within the limits; remove it from EXCEPTIONS" for where in unused]


def rank(values: list[int], share: float) -> int:
    """The value below which `share` of all lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measures(files: list[Source]) -> dict[str, str]:
    """What docs/design.md quotes, by name."""
    functions = [function for file in files for function in file.functions]
    lengths, lines = [length(f) for f in functions], [file.lines for file in files]
    public, total = sum(len(file.public) for file in files), sum(lines)
    documented = sum(bool(ast.get_docstring(f)) for f in functions)
    folder, most = max(files_per_folder(files).items(), key=lambda item: item[1])
    by_path = {file.path: file for file in files}
    declared = 0
    for file in files:
        for module, names in file.declared.items():
            inside = by_path.get(file.path.parent / f"{module}.py")
            defined = inside.public if inside else [module]  # a name that the package itself has
            declared += len(defined if names == [""] else set(defined) & set(names))
    return {
        "files": str(len(files)),
        "lines": str(total),
        "files in a folder, max": f"{most} ({folder})",
        "lines of a file, median / max": f"{statistics.median(lines):g} / {max(lines)}",
        "lines of a function, median / p90 / max": (
            f"{statistics.median(lengths):g} / {rank(lengths, 0.9)} / {max(lengths)}"
        ),
        "parameters of a function, max": str(max(len(parameters(f)) for f in functions)),
        "nesting of a function, p95": str(rank([nesting(f) for f in functions], 0.95)),
        "functions with a docstring": f"{documented / len(functions):.0%}",
        "functions with all types": f"{sum(map(annotated, functions)) / len(functions):.0%}",
        "names without underscore": f"{public} ({1000 * public / total:.0f} in 1,000 lines)",
        "of these public by an __all__": str(declared),
    }


def trace(bundle: Path) -> dict[str, str]:
    """Run one small request and follow it in the main thread: which of our functions call which."""
    from ltxrt.runtime import Pipeline, Request  # here, because all else needs nothing installed

    pipeline = Pipeline(bundle)
    request = Request(prompt="a lighthouse in fog", height=64, width=64, num_frames=9)
    module = str(sys.modules[Pipeline.__module__].__file__)
    root = Path(module.partition("/runtime/")[0])
    ours = tuple(f"{root / package}/" for package in PACKAGES)
    calls: list[tuple[CodeType | None, CodeType]] = []

    def follow(frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(ours):
            return
        stack = [
            outer for outer, _ in traceback.walk_stack(frame) if outer.f_code.co_filename.startswith(ours)
        ]
        if not any(outer.f_code.co_name == "<module>" for outer in stack):  # what an import runs is no stop
            calls.append((stack[1].f_code if stack[1:] else None, frame.f_code))

    sys.setprofile(follow)
    try:
        pipeline.generate(request)
    finally:
        sys.setprofile(None)
    between = [(a, b) for a, b in calls if a is None or a.co_filename != b.co_filename]
    return {
        "files that a request enters": str(len({called.co_filename for _, called in calls})),
        "calls between files, each pair once": str(len(set(between))),
        "entries into the pipeline's module": str(sum(b.co_filename == module for _, b in between)),
        "functions run there": str(len({b for _, b in calls if b.co_filename == module})),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="check the limits instead of printing measures")
    parser.add_argument("--request", metavar="BUNDLE", type=Path, help="follow a request through this bundle")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="another checkout")
    given = parser.parse_args()
    root = given.root.resolve()
    if given.check:
        found = check(sources(root, CHECKED), EXCEPTIONS)
        sys.stdout.write("".join(f"{line}\n" for line in found))
        return int(bool(found))
    result = measures(sources(root)) | (trace(given.request) if given.request else {})
    sys.stdout.write("".join(f"{name:42}{value}\n" for name, value in result.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
