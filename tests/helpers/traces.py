"""Traced graphs, kept for all workers and from run to run: tracing is most of what an export of a test takes.

A graph is a function of the module's class, its config, the contract, the precision, the code that these
lead to and the versions of what traces; the key is a hash of all of them. The weights are never kept.

The folder is `ltxrt/tests` below XDG_CACHE_HOME, or the one in LTXRT_TEST_CACHE, which may be removed at any
time. An empty LTXRT_TEST_CACHE keeps nothing from run to run, as in `.ci/run`.
"""

import ast
import fcntl
import functools
import hashlib
import os
import platform
import sys
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import onnx_ir as ir

from ltxrt.engines.contract import Affine
from ltxrt.export import write
from ltxrt.export.graph import trace as tracing

ROOT = Path(__file__).parents[2]
PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxscript", "sympy", "torch")
EXPORT = "ltxrt.export."
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
ABSENT = "weights that are streamed later"
KEPT = 200  # graphs of about 100 kB; the least recently used go


@contextmanager
def locked(path):
    """Nobody else is in a `locked` of this file, whichever process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def folder(session):
    """Where this session's graphs are kept; `session` is its own folder."""
    named = os.environ.get("LTXRT_TEST_CACHE")
    if named is None:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ltxrt" / "tests"
    return Path(named) if named else session / "traces"


@functools.cache
def imports(file):
    """The files of export/ that a file of it names in its imports."""
    names = []
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
        elif isinstance(node, ast.Import):
            names += [name.name for name in node.names]
    return frozenset(f for name in names if (f := source(name)))


@functools.cache
def code(file):
    """What a file of Python does, whatever it says in docstrings, comments and spaces."""
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def source(module):
    """The file of a module of ltxrt.export, or of the tests once it is imported; None for others."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if not module.startswith("ltxrt.") and file is not None and Path(file).is_relative_to(ROOT / "tests"):
        return Path(file)
    place = ROOT.joinpath(*module.split(".")[1:])
    candidates = (place.with_suffix(".py"), place / "__init__.py") if module.startswith(EXPORT) else ()
    return next((f for f in candidates if f.is_file()), None)


def closure(modules):
    """Every file of export/ that these modules lead to, themselves included."""
    found, new = set(), {source(m) for m in modules}
    while new:
        found |= new
        new = {other for file in new for other in imports(file)} - found
    return sorted(found)


def said(contract, sizes):
    """All that a trace takes of a contract: of engines/ it uses nothing else but an error's class."""
    axes = contract.dynamic_axes()
    terms = sorted({term for named in axes.values() for term in named.values()})
    resolved = [tensor.resolve(sizes) for tensor in contract.inputs]
    return contract, contract.symbols, axes, [Affine.parse(term) for term in terms], resolved


def key(build, contract, precision, sizes):
    """What decides the graph, as a hash."""
    made_of = (
        build.func.__module__,
        build.func.__qualname__,
        build.args,
        build.keywords,
        said(contract, sizes),
        precision,
        sorted(sizes.items()),
    )
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    digest = hashlib.sha256(repr((made_of, platform.python_version(), versions)).encode())
    for file in closure((tracing.__name__, build.func.__module__)):
        digest.update(f"{file.relative_to(ROOT)}\n{code(file)}\n".encode())
    return digest.hexdigest()


def store(traced, path):
    """Write a trace: its graph, in which initialisers without data are said to be elsewhere."""
    values = traced.model.graph.initializers
    empty = [v for v in values.values() if v.const_value is None]
    for v in empty:
        v.const_value = ir.ExternalTensor(ABSENT, 0, 0, v.dtype, shape=v.shape, name=v.name)
    traced.model.metadata_props["transposed"] = "\n".join(sorted(traced.transposed))
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_bytes(ir.serde.serialize_model(traced.model).SerializeToString())
    finally:
        for v in empty:
            v.const_value = None
        del traced.model.metadata_props["transposed"]
    partial.rename(path)


def load(path):
    """The trace that `store` wrote."""
    model = ir.load(path)
    for v in model.graph.initializers.values():
        if isinstance(v.const_value, ir.ExternalTensor):
            assert v.const_value.location == ABSENT
            v.const_value = None
    transposed = model.metadata_props.pop("transposed").split("\n")
    return tracing.Traced(model, frozenset(transposed) - {""})


def forget(place):
    for old in sorted(place.glob("*.onnx"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
        old.unlink(missing_ok=True)
        old.with_suffix(".lock").unlink(missing_ok=True)


def keep(patch, place):
    """Exports of this process take what is in `place`, and add to it."""

    def kept(build, contract, precision, sizes):
        path = place / f"{key(build, contract, precision, sizes)}.onnx"
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                traced = tracing.trace(build, contract, precision, sizes)
                store(traced, path)
                forget(place)
                return traced
            path.touch()
            return load(path)

    patch.setattr(write, "trace", kept)
