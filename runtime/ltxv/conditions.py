"""A request's images and videos as pixels of a pass's size, and all checks of them before any work.

A condition is a file or an array; the arithmetic on its latents is in `sampling.conditioning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.runtime.ltxv.settings import Settings
from ltxrt.runtime.media import given
from ltxrt.runtime.media.condition import Condition
from ltxrt.runtime.media.given import Media
from ltxrt.runtime.media.preprocess import Fit, Preparation, padded, preparation_named
from ltxrt.runtime.media.resize import resize
from ltxrt.runtime.sampling import conditioning
from ltxrt.runtime.sampling.conditioning import Item
from ltxrt.runtime.sampling.latents import Compression, VideoShape

if TYPE_CHECKING:
    from ltxrt.runtime.media.read import Decoded

Array = NDArray[np.float32]
KEPT_BYTES = 256 << 20  # decoded frames of all files together that are kept from the checks to the last pass


@dataclass(frozen=True)
class Checked:
    """A request's conditions and source video, checked.

    items: where each condition goes; decoded, source: their frames, None for float32 pixels.
    """

    items: tuple[Item, ...]
    decoded: tuple[Decoded | None, ...] = ()
    source: Decoded | None = None


def checked(settings: Settings, vae: Compression) -> Checked:
    """The request's conditions in their order, and its source video, each file decoded once.

    Raises InputError for conditions that do not fit, unreadable files, a source video without effect.
    """
    preparation(settings)
    decoded: list[Decoded | None] = []
    for condition in settings.conditions:
        decoded.append(_decoded(condition, settings, decoded))
    conditions = zip(settings.conditions, decoded, strict=True)
    items = tuple(_expected(condition, settings, vae, frames) for condition, frames in conditions)
    conditioning.check(items, settings.video.num_frames, vae.temporal_compression)
    video = settings.request.input_video
    cut = settings.request.denoise_strength is not None or settings.preset.passes[0].skip_initial > 0
    if video is None and cut:
        raise InputError(
            f"{setting('denoise_strength')} and {setting('skip_initial')} begin with a video that is there; "
            f"give {setting('input_video')}, a file"
        )
    if video is not None:
        if not cut and (settings.preset.passes[0].timesteps or (1.0,))[0] >= 1:
            raise InputError(
                f"{setting('input_video')} would be all noise at the first step; give "
                f"{setting('denoise_strength')} below 1, or {setting('skip_initial')}, or "
                f"{setting('timesteps')} from below 1"
            )
        source = _decoded(_whole(video), settings, decoded)
        _check_whole(_whole(video), settings, vae, source)
        return Checked(items, tuple(decoded), source)
    return Checked(items, tuple(decoded))


def preparation(settings: Settings) -> Preparation:
    """How files are preprocessed: the request's choice, or the reference's behaviour."""
    return preparation_named(settings.request.preparation or settings.reference.preparation)


def read(
    condition: Condition,
    settings: Settings,
    size: VideoShape,
    vae: Compression,
    decoded: Decoded | None = None,
    whole: bool = False,
) -> Array:
    """Pixels (3,n,h,w) in −1..1 of a condition, at the size of a pass.

    `decoded` are the frames, where `checked` kept them; `whole`: it is the source video, of which all frames
    are used.
    """
    video = settings.video
    around = video.margins(settings.padded)
    if not given.is_fitted(condition.source):
        pixels = padded(_array(condition, settings), around)
        same = pixels.shape[2:] == (size.height, size.width)
        return pixels if same else resize(pixels, size.height, size.width)
    from ltxrt.runtime.media import read as media

    fit = Fit((video.height, video.width), (size.height, size.width), whole, around)
    count, trimming = (size.num_frames, None) if whole else (video.num_frames, vae)
    return media.read(condition, fit, count, trimming, preparation(settings), decoded)


def read_whole(
    settings: Settings, size: VideoShape, vae: Compression, decoded: Decoded | None = None
) -> Array:
    """Pixels (3,F,h,w) of the source video; the frames that are made and dropped in the end repeat its
    last."""
    if settings.request.input_video is None:
        raise InputError(f"{setting('input_video')}: there is none")
    pixels = read(_whole(settings.request.input_video), settings, size, vae, decoded, whole=True)
    missing = settings.padded.num_frames - pixels.shape[1]
    if 0 < missing <= settings.padded.num_frames - settings.video.num_frames:
        pixels = np.concatenate([pixels, *[pixels[:, -1:]] * missing], axis=1)
    return pixels


def item(condition: Condition, pixels: Array) -> Item:
    """The item that says where a condition's pixels (3,n,h,w) go."""
    return Item(condition.frame, pixels.shape[1], condition.strength, condition.label)


def _whole(video: Media) -> Condition:
    return Condition(video, given_as="input_video")


def _decoded(condition: Condition, settings: Settings, before: Sequence[Decoded | None]) -> Decoded | None:
    """What is fitted, as frames, kept within what those before left of KEPT_BYTES; None for other pixels."""
    if not given.is_fitted(condition.source):
        return None
    from ltxrt.runtime.media import read as media  # loads the readers, for which most runs have no use

    left = KEPT_BYTES - sum(one.nbytes for one in before if one is not None)
    return media.decode(condition, settings.padded.num_frames, left)


def _expected(condition: Condition, settings: Settings, vae: Compression, decoded: Decoded | None) -> Item:
    """The item that a condition will become."""
    if decoded is None:
        return item(condition, _array(condition, settings))
    from ltxrt.runtime.media import read as media

    there, total = decoded.count, settings.video.num_frames
    frames = media.trimmed(there, condition.frame, total, vae)
    least = vae.temporal_compression + 1
    if there > 1 and frames < least:
        fit = total - condition.frame
        short = there <= fit
        few = f"has {there} frames" if short else f"{fit} of its frames fit from frame {condition.frame} on"
        way = "a longer one" if short else f"an earlier frame, more {setting('num_frames')}"
        raise InputError(
            f"{condition.label}: {few}, and a video needs {least} or more; give {way} or an image"
        )
    return Item(condition.frame, frames, condition.strength, condition.label)


def _check_whole(condition: Condition, settings: Settings, vae: Compression, decoded: Decoded | None) -> None:
    wanted = settings.video.num_frames
    found = _expected(condition, settings, vae, decoded).frames
    if (found if decoded is None else decoded.count) < wanted:
        raise InputError(
            f"{condition.label}: has {found} usable frame{'s' if found > 1 else ''} and "
            f"{setting('num_frames')} is {wanted}; give a longer one, or {setting('num_frames')} {found}"
        )


def _array(condition: Condition, settings: Settings) -> Array:
    """An array's pixels as (3,n,height,width)."""
    pixels = np.asarray(condition.source)
    video = settings.video
    wanted = (3, video.height, video.width)
    fits = pixels.dtype == np.float32 and pixels.ndim in (3, 4) and pixels.shape[0] == 3
    if not fits or pixels.shape[-2:] != (video.height, video.width):
        raise InputError(
            f"{condition.label} {pixels.dtype} {pixels.shape}: must be float32 {wanted} in -1..1, with an "
            "axis of frames after the 3 for a video; what is uint8, or a file, may have any size"
        )
    return np.asarray(pixels if pixels.ndim == 4 else pixels[:, None], np.float32)
