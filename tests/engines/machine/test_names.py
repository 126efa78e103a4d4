import tomllib
from pathlib import Path

import pytest

from ltxrt.engines.backend import packages, preferred
from ltxrt.engines.errors import InputError
from ltxrt.engines.machine.names import ALIASES, BACKENDS, choices, named
from ltxrt.engines.tensorrt.build import flavour_of

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def brought(extra):
    """The distributions that an extra brings, also through other extras."""
    found = set()
    for line in EXTRAS[extra]:
        inner = line.removeprefix("ltxrt[").removesuffix("]")
        found |= brought(inner) if inner != line else {line.partition(">=")[0].partition("[")[0]}
    return found


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *((name, name) for name in BACKENDS),
        *((name.replace("_", "-"), name) for name in BACKENDS),
        *ALIASES.items(),
        ("TRT", "tensorrt"),
        (" rtx ", "tensorrt_rtx"),
    ],
)
def test_a_backend_has_one_name_an_alias_and_either_dash(given, meant):
    assert named(given) == meant
    assert preferred(given) == preferred(meant)


@pytest.mark.parametrize("name", [name for name in choices() if name != "auto"])
def test_every_name_of_a_backend_is_an_extra_that_brings_its_packages(name):
    assert {p.distribution for p in packages(name)} <= brought(name.replace("_", "-"))


@pytest.mark.parametrize(
    ("given", "near"), [("tensort", "tensorrt"), ("abacus", ""), ("onnx-runtime", "onnxruntime")]
)
def test_no_backend_s_name_is_refused_with_the_names_there_are(given, near):
    hint = rf" \(the nearest is {near}\)" if near else ""
    with pytest.raises(
        InputError, match=rf"no backend has this name{hint}; they are onnxruntime \(cpu\)"
    ) as e:
        named(given)
    assert e.value.field == "backend"


def test_engines_are_built_for_an_alias_and_not_for_what_runs_graphs():
    assert flavour_of("rtx") is flavour_of("tensorrt_rtx")
    with pytest.raises(InputError, match="engines are built for tensorrt, tensorrt_rtx"):
        flavour_of("cpu")
