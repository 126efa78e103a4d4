"""The formulas of guidance, and that other families' rules are data: four branches, two streams, x0."""

import numpy as np
import pytest
import torch
from diffusers.pipelines.ltx.pipeline_ltx import rescale_noise_cfg

from ltxrt.engines.errors import LtxrtError
from ltxrt.runtime.sampling.guidance import (
    BRANCHES,
    StepGuidance,
    StreamGuidance,
    combine,
    perturbation_mask,
    predict,
    projected,
    rescale,
)


def velocities(count, batch=2):
    rng = np.random.default_rng(count)
    scales = np.arange(1, batch + 1, dtype=np.float32)[:, None, None]
    return [rng.standard_normal((batch, 30, 8), dtype=np.float32) * scales + 0.1 for _ in range(count)]


def test_guidance_that_is_off_is_the_positive_branch_whatever_else_ran():
    negative, positive, perturbed, isolated = velocities(4)
    outputs = dict(zip(BRANCHES, (negative, positive, perturbed, isolated)))
    assert combine(StreamGuidance(), outputs) is positive


def test_each_scale_moves_away_from_its_own_branch():
    negative, positive, perturbed, isolated = velocities(4)
    outputs = dict(zip(BRANCHES, (negative, positive, perturbed, isolated)))
    for guidance, expected in (
        (StreamGuidance(cfg=3), negative + 3 * (positive - negative)),
        (StreamGuidance(stg=2), positive + 2 * (positive - perturbed)),
        (StreamGuidance(modality=3), positive + 2 * (positive - isolated)),
    ):
        np.testing.assert_allclose(combine(guidance, outputs), expected, rtol=1e-6, atol=1e-6)


def test_a_scale_whose_branch_did_not_run_has_no_effect():
    (positive,) = velocities(1)
    found = combine(StreamGuidance(cfg=3, stg=1, modality=2), {"positive": positive})
    np.testing.assert_array_equal(found, positive)


@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
def test_rescaling_is_diffusers(phi):
    velocity, positive = velocities(2)
    expected = rescale_noise_cfg(torch.from_numpy(velocity), torch.from_numpy(positive), phi)
    np.testing.assert_allclose(rescale(velocity, positive, phi), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_projection_is_per_sample_and_leaves_what_is_parallel():
    negative, positive = velocities(2)
    alpha = [(p * n).sum() / (n * n).sum() for p, n in zip(positive.astype(np.float64), negative)]
    np.testing.assert_allclose(
        projected(negative, positive), negative * np.float32(alpha)[:, None, None], rtol=1e-5
    )
    np.testing.assert_allclose(projected(2 * positive, positive), positive, rtol=1e-6)


# LTX-2's two modalities as released: scales of video and audio, and STG in other blocks of each.
SCALES = {"video": (3.0, 1.0, 3.0, 0.7), "audio": (7.0, 1.0, 3.0, 0.7)}
BLOCKS, ROWS = 48, 4  # rows: attention of video, of audio, audio to video, video to audio
PERTURBED = ((29, 0), (28, 1))
ISOLATED = tuple((block, row) for block in range(BLOCKS) for row in (2, 3))


def two_streams(**changed):
    streams = {
        name: StreamGuidance(cfg, stg, modality, (factor,))
        for name, (cfg, stg, modality, factor) in SCALES.items()
    }
    return StepGuidance(
        {**streams, **changed}, BRANCHES, {"perturbed": PERTURBED, "isolated": ISOLATED}, space="x0"
    )


def arrays(rng):
    """Velocities of every branch, latents, and timesteps that differ from token to token."""
    shapes = {"video": (1, 24, 8), "audio": (1, 9, 5)}
    latents = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    outputs = {
        branch: {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
        for branch in BRANCHES
    }
    timesteps = {name: rng.uniform(0, 0.9, shape[:2]).astype(np.float32) for name, shape in shapes.items()}
    return outputs, latents, timesteps


def direct(outputs, latents, timesteps, scales):
    """One modality, in float64: c + (cfg − 1)(c − u) + stg(c − p) + (modality − 1)(c − m), then rescaled."""
    cfg, stg, modality, factor = scales
    u, c, p, m = (latents - timesteps[..., None] * outputs[branch].astype(np.float64) for branch in BRANCHES)
    x = c + (cfg - 1) * (c - u) + stg * (c - p) + (modality - 1) * (c - m)
    return x * (factor * c.std(ddof=1) / x.std(ddof=1) + 1 - factor)


def test_four_branches_of_two_streams_are_combined_in_x0_as_the_direct_formula_says():
    outputs, latents, timesteps = arrays(np.random.default_rng(2))
    found = predict(two_streams(), outputs, latents, timesteps)
    assert list(found) == ["video", "audio"]
    for name, scales in SCALES.items():
        own = {branch: streams[name] for branch, streams in outputs.items()}
        expected = direct(own, latents[name], timesteps[name], scales)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-5)
        in_velocity = combine(two_streams().streams[name], own)
        assert np.abs(found[name] - in_velocity).max() > 0.1  # the space is not a detail


def test_a_stream_without_guidance_keeps_its_positive_branch_beside_one_that_has_all_four():
    outputs, latents, timesteps = arrays(np.random.default_rng(3))
    found = predict(two_streams(audio=StreamGuidance()), outputs, latents, timesteps)
    plain = latents["audio"] - timesteps["audio"][..., None] * outputs["positive"]["audio"]
    np.testing.assert_array_equal(found["audio"], plain)


def test_the_mask_of_four_branches_perturbs_blocks_of_each_stream_and_isolates_in_all():
    mask = perturbation_mask(two_streams(), BLOCKS, ROWS)
    assert mask.shape == (BLOCKS, ROWS, 4) and mask[:, :, :2].all()
    assert [tuple(map(int, place)) for place in np.argwhere(~mask[:, :, 2])] == sorted(PERTURBED)
    assert not mask[:, 2:, 3].any() and mask[:, :2, 3].all()


def test_branches_of_another_step_are_refused():
    outputs, latents, timesteps = arrays(np.random.default_rng(4))
    del outputs["isolated"]
    with pytest.raises(LtxrtError, match="combines negative, positive, perturbed, isolated; got negative, "):
        predict(two_streams(), outputs, latents, timesteps)
