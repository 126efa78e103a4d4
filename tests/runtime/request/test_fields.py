"""The table of settings: every row is an option, a key of YAML and JSON, and a field of the request."""

import dataclasses
import json
from pathlib import Path

import pytest

from ltxrt.engines.cli_base import called
from ltxrt.engines.errors import InputError
from ltxrt.engines.families.ltxv.facts import Pass, Preset
from ltxrt.runtime.cli import main
from ltxrt.runtime.ltxv.compat import BEHAVIOURS
from ltxrt.runtime.ltxv.guidance import MODES
from ltxrt.runtime.media.read import Condition
from ltxrt.runtime.request import Request, fields, json_form, kinds, options, yaml_file
from ltxrt.runtime.request.fields import OF_A_PASS, SETTINGS, Scope

# Of a kind: what an option is given, what YAML and JSON are, and the value in Python.
EXAMPLES = {
    kinds.TEXT: ("fog", "fog", "fog"),
    kinds.WHOLE: ("64", 64, 64),
    kinds.NUMBER: ("0.5", 0.5, 0.5),
    kinds.SWITCH: (None, True, True),
    kinds.NUMBERS: ("1,0.5", [1, 0.5], (1.0, 0.5)),
    kinds.BLOCKS: ("1,2;;3", [[1, 2], [], [3]], ((1, 2), (), (3,))),
    kinds.FILE: ("a.png", "a.png", Path("a.png")),
    kinds.MEMORY: ("1GiB", 2**30, 2**30),
    kinds.CONDITIONS: (
        "a.png@8:0.5",
        [{"path": "a.png", "frame": 8, "strength": 0.5}],
        (Condition(Path("a.png"), 8, 0.5, "a.png@8:0.5"),),
    ),
    kinds.GROUP: ("cfg-star=yes", {"cfg_star": True}, {"cfg_star": True}),
}
BASE = {"prompt": "fog", "gpu": "L4"}  # so that the generator may be CUDA's
SPECIAL = {"gpu": ("T4", "T4", "T4"), "frame_rate": ("24.5", 24.5, 24.5)}
EVERY = pytest.mark.parametrize("name", SETTINGS)
BOUNDED = pytest.mark.parametrize("name", [name for name, row in SETTINGS.items() if row.bounds])


def example(name):
    kind = SETTINGS[name].kind
    return SPECIAL.get(name) or (EXAMPLES[kind] if kind in EXAMPLES else (kind.words[-1],) * 3)


def by_options(*arguments):
    """The request that a command line makes, and the click context."""
    context = main.make_context("ltx-run", ["--bundle", "b", "--output", "v.mp4", *arguments])
    values, second = options.read({name: context.params[name] for name in SETTINGS})
    return Request(**{**BASE, **options.merged({}, values, second)}), context


def by_file(folder, data):
    """The request that a settings file makes: JSON is YAML."""
    (folder / "s.yaml").write_text(json.dumps(data))
    return Request(**{**BASE, **yaml_file.read(folder / "s.yaml").fields()})


def by_json(data):
    return json_form.loads(json.dumps({**BASE, **data}))


def value_of(request, name):
    """A condition's text is what a user wrote, in which the ways differ."""
    value = getattr(request, name)
    return [dataclasses.replace(c, text="") for c in value] if name == "conditions" else value


def beyond(name, steps):
    """A value past the bounds, as it is written: a list where it may be one."""
    low, high = SETTINGS[name].bounds
    whole = SETTINGS[name].kind in (kinds.WHOLE, kinds.MEMORY)
    value = (
        (int(low) - 1 if steps < 0 else int(high) + 1) if whole else (low - 0.5 if steps < 0 else high + 0.5)
    )
    return [value] if SETTINGS[name].kind is kinds.NUMBERS else value


def test_the_table_and_the_request_have_the_same_settings():
    assert {field.name for field in dataclasses.fields(Request)} == set(SETTINGS)
    names = [name for rows in fields.GROUPS.values() for name in (row.name for row in rows)]
    assert len(names) == len(SETTINGS)
    request = Request("fog")
    for name, row in SETTINGS.items():
        assert name == "prompt" or getattr(request, name) == row.default


def test_what_a_preset_has_is_in_the_table():
    of_a_pass = {field.name for field in dataclasses.fields(Pass)}
    assert of_a_pass | {"tone_map"} == set(OF_A_PASS)
    assert {field.name for field in dataclasses.fields(Preset)} - {"passes"} <= set(SETTINGS)
    assert set(SETTINGS["reference"].kind.words) == set(BEHAVIOURS)
    assert SETTINGS["stg_mode"].kind.words == MODES


@EVERY
def test_every_setting_has_an_option(name, tmp_path):
    text, _, value = example(name)
    _, context = by_options()
    flag = called(context, name)
    assert flag.startswith("--")
    request, _ = by_options(*([flag] if text is None else [flag, text]))
    assert value_of(request, name) == value_of(Request(**{**BASE, name: value}), name)


@EVERY
def test_every_setting_is_read_from_a_file_under_each_of_its_keys(name, tmp_path):
    _, data, value = example(name)
    for key in (name, name.replace("_", "-"), *SETTINGS[name].keys):
        given = {"first_pass": {}, key: data} if name == "second_pass" else {key: data}
        assert value_of(by_file(tmp_path, given), name) == value_of(Request(**{**BASE, name: value}), name)


@EVERY
def test_every_setting_goes_through_json_and_back(name):
    _, data, value = example(name)
    request = by_json({name: data})
    assert value_of(request, name) == value_of(Request(**{**BASE, name: value}), name)
    again = json_form.loads(json.dumps(json_form.write(request)))
    assert again == request


@BOUNDED
@pytest.mark.parametrize("side", [-1, 1])
def test_what_is_out_of_bounds_is_refused_with_its_name_in_every_way_in(name, side, tmp_path):
    value, flag = beyond(name, side), called(by_options()[1], name)
    text = str(value[0] if isinstance(value, list) else value)
    ways = [lambda: by_file(tmp_path, {name: value}), lambda: by_json({name: value})]
    if SETTINGS[name].kind is not kinds.MEMORY or side > 0:  # an option's text has no sign
        ways.append(lambda: by_options(flag, text))
    for way in ways:
        with pytest.raises(InputError, match=rf"^{name} .*: must be between") as error:
            way()
        assert error.value.field == name
    if SETTINGS[name].scope is not Scope.REQUEST:
        key = f"{name.replace('_', '-')}={text}"
        for way in (
            lambda: by_options("--second-pass", key),
            lambda: by_json({"second_pass": {name: value}}),
        ):
            with pytest.raises(InputError, match="must be between") as error:
                way()
            assert error.value.field == f"second_pass.{name}"


@EVERY
def test_json_of_another_type_is_refused_with_its_name(name):
    for wrong in ({"a": [1]}, [[{}]]):
        if name in ("second_pass", "conditions"):
            continue
        with pytest.raises(InputError, match="it must be") as error:
            by_json({name: wrong})
        assert error.value.field == name


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[1]", r"the request is \[1\]; it must be an object"),
        ("{", "no JSON that is read here"),
        ("{}", "^prompt is missing"),
        ('{"prompt": ""}', "^prompt is empty"),
        ('{"promt": "fog"}', "unknown key 'promt'; the nearest known one is prompt"),
        ('{"prompt": "fog", "num-frames": 9}', "nearest known one is num_frames"),
        ('{"prompt": "fog", "seed": true}', "^seed is true; it must be a whole number"),
        ('{"prompt": "fog", "steps": 1.5}', "^steps is 1.5; it must be a whole number"),
        ('{"prompt": "fog", "timesteps": [1, "x"]}', r"^timesteps\[1\] is the text 'x'"),
        ('{"prompt": "fog", "second_pass": 3}', "^second_pass is 3; it must be a block"),
        ('{"prompt": "fog", "second_pass": {"height": 64}}', "unknown key 'height'"),
        ('{"prompt": "fog", "second_pass": {"steps": "3"}}', "^second_pass.steps is the text"),
        ('{"prompt": "fog", "conditions": [{"frame": 1}]}', r"^conditions\[0\] is .* a path"),
        ('{"prompt": "fog", "conditions": [{"path": "a", "x": 1}]}', r"^conditions\[0\] is .* a path"),
        ('{"prompt": "fog", "conditions": [{"path": "a", "frame": 1.5}]}', "frame is 1.5; it must be"),
        (json.dumps({"prompt": "x" * 100_001}), "^prompt has 100001 characters; give up to 100000"),
        (json.dumps({"prompt": "fog", "timesteps": [1] * 1001}), "^timesteps has 1001 entries"),
    ],
)
def test_json_that_is_no_request(data, message):
    with pytest.raises(InputError, match=message) as error:
        json_form.loads(data)
    assert len(str(error.value)) < 1200


def test_null_leaves_a_setting_open():
    assert by_json({"steps": None, "reference": None}) == Request(**BASE)


def test_an_array_has_no_json():
    import numpy as np

    with pytest.raises(InputError, match="an array has no name"):
        json_form.write(Request("fog", noise=np.zeros(1, np.float32)))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"steps": "3"}, "steps"),
        ({"steps": True}, "steps"),
        ({"seed": -2}, "seed"),
        ({"cfg_star": 2}, "cfg_star"),
        ({"guidance_scale": "3"}, "guidance_scale"),
        ({"skip_block_list": (1, 2)}, "skip_block_list"),
        ({"second_pass": {"stg_scale": (1.0, 200.0)}}, "second_pass.stg_scale"),
        ({"second_pass": 3}, "second_pass"),
        ({"conditions": "a.png"}, "conditions"),
        ({"gpu": "GTX 970"}, "gpu"),
    ],
)
def test_a_request_made_in_python_is_checked_when_it_is_made(values, field):
    with pytest.raises(InputError) as error:
        Request("fog", **values)
    assert error.value.field == field


def test_the_option_of_a_setting_has_the_names_of_files_and_former_ones_too():
    for given, same in (
        (("--reference", "diffusers"), ("--compat", "diffusers")),
        (("--fps", "24"), ("--frame-rate", "24")),
        (("--num-inference-steps", "3"), ("--steps", "3")),
        (("--image-cond-noise-scale", "0.2"), ("--image-noise-scale", "0.2")),
        (("--cfg-star-rescale",), ("--cfg-star",)),
        (("--no-stochastic-sampling",), ("--no-stochastic",)),
    ):
        assert by_options(*given)[0] == by_options(*same)[0]
    context = by_options()[1]
    option = next(one for one in main.params if one.name == "reference")
    assert option.get_help_record(context)[0] == "--compat [official|diffusers|diffusers-condition]"
