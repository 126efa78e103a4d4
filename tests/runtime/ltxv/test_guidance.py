"""LTX-Video's lists of guidance as steps' data: which branches run where, over which blocks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ltxrt.engines.errors import InputError
from ltxrt.runtime.ltxv.guidance import MODES, GuidanceLists, plan, unperturbed
from ltxrt.runtime.sampling.guidance import combine, perturbation_mask
from ltxrt.runtime.sampling.schedule import linear_quadratic, skip

LAYERS = 48
DEV_FIRST = GuidanceLists(
    guidance_scale=(1, 1, 6, 8, 6, 1, 1),
    stg_scale=(0, 0, 4, 4, 4, 2, 1),
    rescaling_scale=(1, 1, 0.5, 0.5, 1, 1, 1),
    guidance_timesteps=(1.0, 0.996, 0.9933, 0.9850, 0.9767, 0.9008, 0.6180),
    skip_block_list=((), (11, 25, 35, 39), (22, 35, 39), (28,), (28,), (28,), (28,)),
    cfg_star=True,
)
DEV_SECOND = GuidanceLists((1,), (1,), (1,), (1.0,), ((27,),), cfg_star=True)
# The official 13B-dev first pass, worked out by hand: step numbers, then CFG, STG, rescaling and the blocks
# that are perturbed, and the batch.
DEV_FIRST_TABLE = (
    (range(0, 1), (1, 0, (), ()), 1),
    (range(1, 3), (1, 0, (), ()), 1),
    (range(3, 5), (6, 4, (0.5,), (22, 35, 39)), 3),
    (range(5, 10), (8, 4, (0.5,), (28,)), 3),
    (range(10, 14), (6, 4, (), (28,)), 3),
    (range(14, 19), (1, 2, (), (28,)), 2),
    (range(19, 27), (1, 1, (), (28,)), 2),
)
STG = GuidanceLists((3,), (1,), (0.7,), None, ((19,),))
SIGMAS = linear_quadratic(8).astype(np.float32)


def steps_of(lists, sigmas=SIGMAS, layers=LAYERS, rescale=0.0):
    return plan(lists, sigmas, layers, rescale)


def scales(step):
    """CFG, STG, rescaling and perturbed blocks of a step."""
    video = step.streams["video"]
    blocks = tuple(block for block, _ in step.perturbed.get("perturbed", ()))
    return video.cfg, video.stg, video.rescales, blocks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_13b_dev_first_pass(dtype):
    steps = steps_of(DEV_FIRST, skip(linear_quadratic(30).astype(dtype), 0, 3))
    assert len(steps) == 27
    for numbers, expected, batch in DEV_FIRST_TABLE:
        for i in numbers:
            assert (i, scales(steps[i]), len(steps[i].branches)) == (i, expected, batch)
    assert sum(len(step.branches) for step in steps) == 62


def test_sigmas_next_to_a_guidance_timestep():
    sigmas = skip(linear_quadratic(30).astype(np.float32), 0, 3)
    # What each boundary turns on: 0.976667 is below 0.9767, 0.900778 below 0.9008, 0.985 equal in fp32 alone.
    assert sigmas[14] < 0.9767 and sigmas[19] < 0.9008 and float(sigmas[9]) != 0.9850
    found = [scales(step) for step in steps_of(DEV_FIRST, sigmas)]
    assert [found[i][0] for i in (9, 10, 13, 14)] == [8, 6, 6, 1]
    assert [found[i][1] for i in (14, 18, 19, 26)] == [2, 2, 1, 1]


def test_a_sigma_below_every_guidance_timestep_takes_the_last_entry():
    lists = GuidanceLists(guidance_scale=(2, 3), guidance_timesteps=(0.9, 0.5))
    steps = steps_of(lists, np.array([1, 0.9, 0.7, 0.5, 0.1], np.float32))
    assert [scales(step)[0] for step in steps] == [2, 2, 3, 3, 3]


def test_the_13b_dev_second_pass_is_perturbed_throughout():
    steps = steps_of(DEV_SECOND, skip(linear_quadratic(30), 17, 0))
    assert [scales(step) for step in steps] == [(1, 1, (), (27,))] * 13
    assert {step.branches for step in steps} == {("positive", "perturbed")}


def test_single_entries_hold_for_all_steps():
    assert [scales(step) for step in steps_of(STG)] == [(3, 1, (0.7,), (19,))] * 8
    mixed = replace(DEV_FIRST, guidance_scale=(3,), skip_block_list=((5,),))
    found = [scales(step) for step in steps_of(mixed)]
    assert {(cfg, blocks) for cfg, stg, _, blocks in found if stg} == {(3, (5,))}


def test_by_default_there_is_no_guidance():
    for step in steps_of(GuidanceLists()):
        assert (step.branches, scales(step)) == (("positive",), (1, 0, (), ()))


def test_diffusers_rescaling_follows_the_official_one_where_there_is_a_negative_prompt():
    assert {scales(step)[2] for step in steps_of(STG, rescale=0.4)} == {(0.7, 0.4)}
    without = replace(STG, guidance_scale=(1,))
    assert {scales(step)[2] for step in steps_of(without, rescale=0.4)} == {(0.7,)}


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
        steps_of(replace(DEV_FIRST, **changes))


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
def test_which_branches_run(cfg, stg, expected):
    steps = steps_of(GuidanceLists((cfg,), (stg,), skip_block_list=((0,),)))
    assert {step.branches for step in steps} == {expected}


@pytest.mark.parametrize("cfg", [1, 3])
def test_stg_without_blocks_is_what_the_official_pipeline_makes_of_two_equal_velocities(cfg):
    """Its mask is None there, so the perturbed sample is the positive one; it rescales all the same."""
    lists = GuidanceLists((cfg,), (2,), (0.7,), cfg_star=True)
    (step, *_), (told, *_) = steps_of(lists), steps_of(replace(lists, skip_block_list=((3,),)))
    assert unperturbed((step, told)) == 1
    rng = np.random.default_rng(0)
    names = ("negative", "positive") if cfg > 1 else ("positive",)
    assert (step.branches, told.branches) == (names, (*names, "perturbed"))
    outputs = {name: rng.standard_normal((1, 5, 4)).astype(np.float32) for name in names}
    run = {**outputs, "perturbed": outputs["positive"]}
    ours = combine(step.streams["video"], outputs)
    np.testing.assert_array_equal(ours, combine(told.streams["video"], run))
    if cfg > 1:
        assert not np.allclose(ours, combine(replace(step.streams["video"], rescales=()), outputs))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cfg", [1, 3])
def test_the_mask_perturbs_the_named_blocks_of_the_last_branch_alone(mode, cfg):
    lists = GuidanceLists((cfg,), (1,), skip_block_list=((2, 5),), mode=mode)
    (step, *_) = steps_of(lists, layers=6)
    mask = perturbation_mask(step, 6, len(MODES))
    assert mask.dtype == np.bool_ and mask.shape == (6, 3, len(step.branches))
    found = {tuple(map(int, index)) for index in np.argwhere(~mask)}
    assert found == {(block, MODES.index(mode), mask.shape[2] - 1) for block in (2, 5)}


def test_without_stg_nothing_is_perturbed_and_any_block_may_be_named():
    (step, *_) = steps_of(GuidanceLists((3,), (0,), skip_block_list=((42,),)), layers=28)
    assert perturbation_mask(step, 28, len(MODES)).all()


@pytest.mark.parametrize("block", [28, 42, -1])
def test_a_block_the_transformer_lacks(block):
    message = f"skip_block_list names block {block}; this transformer has 28 blocks, 0 to 27"
    with pytest.raises(InputError, match=message):
        steps_of(replace(STG, skip_block_list=((3, block),)), layers=28)


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
def test_what_is_followed_is_the_official_guidance(g, s, r, star):
    (step, *_) = steps_of(GuidanceLists((g,), (s,), (r,), None, ((1,),), cfg_star=star))
    rng = np.random.default_rng(7)
    outputs = {
        name: rng.standard_normal((2, 30, 8), dtype=np.float32) * (i + 1) + np.float32(0.1)
        for i, name in enumerate(step.branches)
    }
    ours = combine(step.streams["video"], outputs)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, reference(outputs, g, s, r, star), rtol=1e-5, atol=5e-5)
