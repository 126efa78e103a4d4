import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from ltxrt.engines.families.ltxv.facts import SchedulerFacts
from ltxrt.runtime.noise.cpu import TorchCpuGenerator
from ltxrt.runtime.sampling.conditioning import Strengths, TokenStream
from ltxrt.runtime.sampling.denoise import Sampling, denoise
from ltxrt.runtime.sampling.schedule import sigmas

SHAPE = (1, 40, 8)
STEPS = 8
WEIGHT = np.random.default_rng(5).standard_normal((8, 8)).astype(np.float32) / 3
QUADRATIC = sigmas(SchedulerFacts("linear_quadratic", None, None, None), STEPS, 6144)
MASK = np.concatenate([np.full((1, 10), m, np.float32) for m in (1.0, 0.7, 0.0, 0.0)], axis=1)


def model(latents, per_token):
    """Some velocity that depends on the latents and on each token's timestep."""
    return torch.tanh(latents @ torch.from_numpy(WEIGHT)) * (0.5 + per_token[..., None])


def stream(latents, mask=None):
    strengths = Strengths.of(np.zeros(latents.shape[:2], np.float32) if mask is None else mask)
    return TokenStream(latents, np.zeros((3, latents.shape[1]), np.float32), strengths, slice(None))


def velocity(mask=None):
    index = stream(start(), mask).strengths.index

    def call(latents, timesteps, _step):
        per_token = timesteps["video"][0][index]
        return {"video": model(torch.from_numpy(latents["video"]), torch.from_numpy(per_token)).numpy()}

    return call


def official(latents, schedule, mask, scale, stochastic, randn):
    """A transcription of the official loop: per-token timesteps, step rule and conditioning noise."""
    x = initial = torch.from_numpy(latents)
    timesteps = torch.from_numpy(schedule)
    padded = torch.cat([timesteps, torch.zeros(1)])
    mask = torch.zeros(latents.shape[:2]) if mask is None else torch.from_numpy(mask)
    for t in timesteps:
        if scale > 0:
            noised = initial + scale * randn(SHAPE) * t**2
            x = torch.where((mask > 1.0 - 1e-6)[..., None], noised, x)
        current = torch.min(t, 1.0 - mask)
        v = model(x, current)
        lower = (padded[:, None, None] < current[None] - 1e-6) * padded[:, None, None]
        dt = (current - lower.max(dim=0).values)[..., None]
        if stochastic:
            following = current[..., None] - dt
            stepped = (1 - following) * (x - current[..., None] * v) + following * randn(SHAPE)
        else:
            stepped = x - dt * v
        x = torch.where((t - 1e-6 < 1.0 - mask)[..., None], stepped, x)
    return x.numpy()


def start():
    return TorchCpuGenerator(7).randn(SHAPE)


@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("mask", "scale"), [(None, 0.0), (MASK, 0.0), (MASK, 0.15)])
def test_the_loop_is_the_official_one(stochastic, mask, scale):
    reference = torch.Generator("cpu").manual_seed(1)
    expected = official(
        start(), QUADRATIC, mask, scale, stochastic, lambda s: torch.randn(s, generator=reference)
    )
    noise = TorchCpuGenerator(1).randn
    sampling = Sampling(scale, noise if stochastic else None)
    *_, last = denoise(velocity(mask), {"video": stream(start(), mask)}, QUADRATIC, noise, sampling)
    np.testing.assert_allclose(last.latents["video"], expected, rtol=0, atol=1e-5)
    assert last.latents["video"].dtype == np.float32


def test_plain_steps_are_those_of_diffusers_scheduler():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=QUADRATIC)
    x = torch.from_numpy(start())
    steps = denoise(velocity(), {"video": stream(start())}, QUADRATIC, TorchCpuGenerator(1).randn)
    for timestep, step in zip(scheduler.timesteps, steps, strict=True):
        v = model(x, (timestep / 1000).expand(SHAPE[:2]))
        x = scheduler.step(v, timestep, x, return_dict=False)[0]
        np.testing.assert_allclose(step.latents["video"], x.numpy(), rtol=0, atol=2e-6)


def test_a_constant_velocity_is_integrated_over_the_whole_schedule():
    def one(latents, *_):
        return {name: np.ones_like(array) for name, array in latents.items()}

    for schedule in (QUADRATIC, QUADRATIC[3:]):
        *_, last = denoise(one, {"video": stream(start())}, schedule, TorchCpuGenerator(1).randn)
        np.testing.assert_allclose(last.latents["video"], start() - schedule[0], atol=1e-6)


def test_the_true_velocity_of_a_clean_sample_leads_to_it():
    clean, noise = TorchCpuGenerator(3).randn(SHAPE), start()
    for stochastic in (False, True):
        sampling = Sampling(stochastic=TorchCpuGenerator(1).randn if stochastic else None)
        toward = lambda x, t, n: {"video": (x["video"] - clean) / t["video"][..., None]}  # noqa: E731
        *_, last = denoise(toward, {"video": stream(noise)}, QUADRATIC, TorchCpuGenerator(1).randn, sampling)
        np.testing.assert_allclose(last.latents["video"], clean, atol=1e-5)


def test_steps_say_where_they_are_and_are_computed_on_demand():
    calls = []

    def spy(latents, timesteps, index):
        calls.append((index, timesteps["video"].copy()))
        return {"video": np.zeros_like(latents["video"])}

    steps = denoise(spy, {"video": stream(start(), MASK)}, QUADRATIC, TorchCpuGenerator(1).randn)
    assert calls == []
    first = next(steps)
    assert (first.index, first.sigma, len(calls)) == (0, 1.0, 1)
    rest = list(steps)
    assert [s.index for s in rest] == list(range(1, STEPS))
    assert [s.sigma for s in rest] == QUADRATIC[1:].tolist()
    assert [c[0] for c in calls] == list(range(STEPS))
    assert {c[1].shape for c in calls} == {(1, 3)}


def test_given_tokens_never_move_without_image_noise_and_inputs_are_left_alone():
    latents = start()
    streams = {"video": stream(latents, MASK)}
    for step in denoise(velocity(MASK), streams, QUADRATIC, TorchCpuGenerator(1).randn):
        np.testing.assert_array_equal(step.latents["video"][:, :10], latents[:, :10])
    np.testing.assert_array_equal(latents, start())


def test_a_plain_run_draws_no_noise():
    def refuse(shape):
        raise AssertionError(f"drew {shape}")

    assert len(list(denoise(velocity(), {"video": stream(start())}, QUADRATIC, refuse))) == STEPS


@pytest.mark.parametrize("scale", [0.0, 0.15])
def test_streams_of_other_lengths_strengths_and_widths_are_denoised_side_by_side(scale):
    """Each as it would be alone: a stream's mask, size and channels are its own."""
    audio = TorchCpuGenerator(9).randn((1, 7, 3))
    masks = {"video": MASK, "audio": np.array([[1, 0, 0, 0.5, 0, 0, 0]], np.float32)}
    streams = {name: stream(x, masks[name]) for name, x in (("video", start()), ("audio", audio))}

    def calm(shape):
        return np.full(shape, 0.5, np.float32)

    def decay(latents, timesteps, _step):
        return {
            name: x * timesteps[name][0][streams[name].strengths.index][..., None]
            for name, x in latents.items()
        }

    together = list(denoise(decay, streams, QUADRATIC, calm, Sampling(scale)))
    for name, one in streams.items():
        alone = list(denoise(decay, {name: one}, QUADRATIC, calm, Sampling(scale)))
        for both, single in zip(together, alone, strict=True):
            np.testing.assert_array_equal(both.latents[name], single.latents[name])
    assert together[-1].latents["audio"].shape == (1, 7, 3)
    assert (together[-1].latents["audio"] != audio).any()
