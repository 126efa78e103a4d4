from dataclasses import replace

import numpy as np
import pytest
import torch

from ltxrt.engines.errors import InputError
from ltxrt.runtime.sampling.guidance_plan import (
    MODES,
    GuidanceLists,
    StepGuidance,
    check_blocks,
    combine_parts,
    parts,
    perturbation_mask,
    plan,
    unperturbed,
)
from ltxrt.runtime.sampling.schedule import linear_quadratic, skip

DEV_FIRST = GuidanceLists(
    guidance_scale=(1, 1, 6, 8, 6, 1, 1),
    stg_scale=(0, 0, 4, 4, 4, 2, 1),
    rescaling_scale=(1, 1, 0.5, 0.5, 1, 1, 1),
    guidance_timesteps=(1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180),
    skip_block_list=((), (11, 25, 35, 39), (22, 35, 39), (28,), (28,), (28,), (28,)),
    cfg_star=True,
)
DEV_SECOND = GuidanceLists((1,), (1,), (1,), (1.0,), ((27,),), cfg_star=True)
# The official 13B-dev first pass, worked out by hand: step numbers, what they take, their batch.
DEV_FIRST_TABLE = (
    (range(0, 1), StepGuidance(1, 0, 1, ()), 1),
    (range(1, 3), StepGuidance(1, 0, 1, (11, 25, 35, 39)), 1),
    (range(3, 5), StepGuidance(6, 4, 0.5, (22, 35, 39)), 3),
    (range(5, 10), StepGuidance(8, 4, 0.5, (28,)), 3),
    (range(10, 14), StepGuidance(6, 4, 1, (28,)), 3),
    (range(14, 19), StepGuidance(1, 2, 1, (28,)), 2),
    (range(19, 27), StepGuidance(1, 1, 1, (28,)), 2),
)
STG = StepGuidance(3, 1, 0.7, (19,))
SIGMAS = linear_quadratic(8).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_13b_dev_first_pass(dtype):
    steps = plan(DEV_FIRST, skip(linear_quadratic(30).astype(dtype), 0, 3))
    assert len(steps) == 27
    for numbers, expected, batch in DEV_FIRST_TABLE:
        for i in numbers:
            assert (i, steps[i], len(parts(steps[i]))) == (i, expected, batch)
    assert sum(len(parts(step)) for step in steps) == 62


def test_sigmas_next_to_a_guidance_timestep():
    sigmas = skip(linear_quadratic(30).astype(np.float32), 0, 3)
    # What each boundary turns on: 0.976667 is below 0.9767, 0.900778 below 0.9008, 0.985 equal in fp32 alone.
    assert sigmas[14] < 0.9767 and sigmas[19] < 0.9008 and float(sigmas[9]) != 0.9850
    steps = plan(DEV_FIRST, sigmas)
    assert [steps[i].cfg for i in (9, 10, 13, 14)] == [8, 6, 6, 1]
    assert [steps[i].stg for i in (14, 18, 19, 26)] == [2, 2, 1, 1]


def test_a_sigma_below_every_guidance_timestep_takes_the_last_entry():
    lists = GuidanceLists(guidance_scale=(2, 3), guidance_timesteps=(0.9, 0.5))
    steps = plan(lists, np.array([1, 0.9, 0.7, 0.5, 0.1], np.float32))
    assert [step.cfg for step in steps] == [2, 2, 3, 3, 3]


def test_the_13b_dev_second_pass_is_perturbed_throughout():
    steps = plan(DEV_SECOND, skip(linear_quadratic(30), 17, 0))
    assert steps == (StepGuidance(1, 1, 1, (27,)),) * 13
    assert parts(steps[0]) == ("positive", "perturbed")


def test_single_entries_hold_for_all_steps():
    steps = plan(GuidanceLists((3,), (1,), (0.7,), None, ((19,),)), SIGMAS)
    assert steps == (STG,) * 8
    mixed = replace(DEV_FIRST, guidance_scale=(3,), skip_block_list=((5,),))
    assert {(s.cfg, s.skip_blocks) for s in plan(mixed, SIGMAS)} == {(3, (5,))}


def test_by_default_there_is_no_guidance():
    assert {parts(step) for step in plan(GuidanceLists(), SIGMAS)} == {("positive",)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_scale": (1, 2)}, "guidance_scale has 2 entries and guidance_timesteps 7; give 1 or 7"),
        ({"stg_scale": ()}, "stg_scale has 0 entries"),
        ({"skip_block_list": ((1,),) * 6}, "skip_block_list has 6 entries and guidance_timesteps 7"),
        ({"guidance_timesteps": None}, "guidance_scale has 7 entries but there are no guidance_timesteps"),
        ({"guidance_timesteps": ()}, r"guidance_timesteps \(empty\): must be one or more"),
        ({"guidance_timesteps": (1, 0.9, 0.9, 0.8, 0.7, 0.6, 0.5)}, "each below the one before"),
        ({"guidance_timesteps": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}, "guidance_timesteps 0.1, 0.2, "),
        ({"guidance_timesteps": (1000, 6, 5, 4, 3, 2, 1)}, "guidance_timesteps 1000: must be between"),
        ({"guidance_scale": (-1,)}, "guidance_scale -1: must be between 0 and 100"),
        ({"stg_scale": (float("nan"),)}, "stg_scale nan: must be"),
        ({"rescaling_scale": (7,)}, "rescaling_scale 7: must be between 0 and 1"),
        ({"mode": "residual"}, "stg_mode 'residual' is not known; known are attention_values, "),
        ({"stg_scale": (10**400,)}, "stg_scale a number of more than 80 digits: must be"),
    ],
)
def test_lists_that_are_no_plan(changes, message):
    with pytest.raises(InputError, match=message):
        plan(replace(DEV_FIRST, **changes), SIGMAS)


@pytest.mark.parametrize(
    ("cfg", "stg", "expected"),
    [
        (1, 0, ("positive",)),
        (0.5, 0, ("positive",)),
        (1.01, 0, ("negative", "positive")),
        (1, 0.01, ("positive", "perturbed")),
        (3, 1, ("negative", "positive", "perturbed")),
    ],
)
def test_parts(cfg, stg, expected):
    assert parts(StepGuidance(cfg, stg, 1, (0,))) == expected


@pytest.mark.parametrize("cfg", [1, 3])
def test_stg_without_blocks_is_what_the_official_pipeline_makes_of_two_equal_velocities(cfg):
    """Its mask is None there, so the perturbed sample is the positive one; it rescales all the same."""
    (step,) = set(plan(GuidanceLists((cfg,), (2,), (0.7,)), SIGMAS))
    assert unperturbed((step, STG)) == 1
    rng = np.random.default_rng(0)
    names = ("negative", "positive") if cfg > 1 else ("positive",)
    assert parts(step) == names
    outputs = {name: rng.standard_normal((1, 5, 4)).astype(np.float32) for name in names}
    told = replace(step, skip_blocks=(3,))
    run = {**outputs, "perturbed": outputs["positive"]}
    np.testing.assert_array_equal(combine_parts(outputs, step, True), combine_parts(run, told, True))
    if cfg > 1:
        off = replace(step, rescale=1)
        assert not np.allclose(combine_parts(outputs, step, True), combine_parts(outputs, off, True))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cfg", [1, 3])
def test_the_mask_perturbs_the_named_blocks_of_the_last_part_alone(mode, cfg):
    step = StepGuidance(cfg, 1, 1, (2, 5))
    mask = perturbation_mask(6, parts(step), step, mode)
    assert mask.dtype == np.bool_ and mask.shape == (6, 3, len(parts(step)))
    found = {tuple(map(int, index)) for index in np.argwhere(~mask)}
    assert found == {(block, MODES.index(mode), mask.shape[2] - 1) for block in (2, 5)}


def test_without_stg_nothing_is_perturbed_and_any_block_may_be_named():
    step = StepGuidance(3, 0, 1, (42,))
    check_blocks((step,), 28)
    assert perturbation_mask(28, parts(step), step, "attention_values").all()


@pytest.mark.parametrize("block", [28, 42, -1])
def test_a_block_the_transformer_lacks(block):
    step = replace(STG, skip_blocks=(3, block))
    message = f"skip_block_list names block {block}; this transformer has 28 blocks, 0 to 27"
    with pytest.raises(InputError, match=message):
        perturbation_mask(28, parts(step), step, "attention_values")
    with pytest.raises(InputError, match=message):
        check_blocks((StepGuidance(1, 0, 1, ()), step), 28)


def test_an_unknown_mode_of_a_mask():
    with pytest.raises(InputError, match="stg_mode 'stg_r' is not known"):
        perturbation_mask(28, parts(STG), STG, "stg_r")


def reference(velocities, g, s, r, star):
    """The official pipeline's guidance over the parts that run, in torch."""
    chunks = {name: torch.from_numpy(v) for name, v in velocities.items()}
    out = positive = chunks["positive"]
    batch = positive.shape[0]
    if g > 1:
        negative = chunks["negative"]
        if star:
            flat = negative.reshape(batch, -1)
            dot = (positive.reshape(batch, -1) * flat).sum(1, keepdim=True)
            negative = negative * (dot / ((flat**2).sum(1, keepdim=True) + 1e-8)).view(batch, 1, 1)
        out = negative + g * (positive - negative)
    if s > 0:
        out = out + s * (positive - chunks["perturbed"])
        if r != 1:
            ratio = positive.reshape(batch, -1).std(1) / out.reshape(batch, -1).std(1)
            out = out * (r * ratio + (1 - r)).view(batch, 1, 1)
    return out.numpy()


@pytest.mark.parametrize("star", [True, False])
@pytest.mark.parametrize(
    ("g", "s", "r"), [(1, 0, 0.7), (3, 0, 0.7), (1, 1, 1), (1, 2, 0.5), (3, 1, 0.7), (8, 4, 0.5), (6, 4, 1)]
)
def test_combined_parts_are_the_official_guidance(g, s, r, star):
    step = StepGuidance(g, s, r, (1,))
    rng = np.random.default_rng(7)
    outputs = {
        name: rng.standard_normal((2, 30, 8), dtype=np.float32) * (i + 1) + np.float32(0.1)
        for i, name in enumerate(parts(step))
    }
    ours = combine_parts(outputs, step, star)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference(outputs, g, s, r, star), rtol=1e-5, atol=5e-5)


def test_parts_of_another_step_are_refused():
    velocity = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(InputError, match="this step combines negative, positive, perturbed; got positive"):
        combine_parts({"positive": velocity}, STG, False)
    with pytest.raises(InputError, match="this step combines positive; got negative, positive"):
        combine_parts({"negative": velocity, "positive": velocity}, StepGuidance(1, 0, 1, ()), False)
