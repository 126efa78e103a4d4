"""A finished video: its frames, how it was made, and what programs and notebooks do with it."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ltxrt.engines.errors import InputError, setting
from ltxrt.engines.parsing.text import quoted
from ltxrt.runtime.media import Encoding, VideoWriter
from ltxrt.runtime.request.request import Request

MOST_SHOWN = 32 << 20  # bytes of a video that is put into a notebook's page


class Settings(Protocol):
    """A request completed from its preset, as a family has it."""

    @property
    def request(self) -> Request: ...

    @property
    def preset(self) -> Any: ...


@dataclass(frozen=True, repr=False)
class Video:
    """Frames, and how they were made. `print` shows a line, a notebook plays it.

    frames: (F, H, W, 3) uint8; settings: those that made them; truncated: the prompt's tokens that did not
    fit; metadata: names and texts that `save` writes into the file.
    """

    frames: NDArray[np.uint8]
    settings: Settings
    truncated: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def save(
        self,
        path: Path | str,
        *,
        codec: str | None = None,
        crf: int | None = None,
        metadata: bool = True,
        overwrite: bool = True,
    ) -> Path:
        """Write a file and return its path: .mp4, .webm, .mkv, .gif, .npy, .npz, or, without suffix, a folder
        of PNG. It appears when it is complete.

        codec: "h264", "h265", "vp9" or "av1", where the format has several; crf: the codec's constant
        quality, 0 the best; both None for the format's own. metadata: whether the file says how it was made;
        overwrite: False refuses a file that is there.

        Raises InputError for a place, a format or a quality that cannot be written.
        """
        path, encoding = Path(path), Encoding(codec, crf)
        if not overwrite and path.exists():
            raise InputError(f"{setting('output')} {path}: exists; give a new name, or allow to overwrite it")
        _, height, width, _ = self.frames.shape
        told = self.metadata if metadata else {}
        with VideoWriter(path, height, width, self.settings.preset.frame_rate, told, encoding) as writer:
            for frame in self.frames:
                writer.write(frame)
        return path

    def __repr__(self) -> str:
        count, height, width, _ = self.frames.shape
        request, rate = self.settings.request, self.settings.preset.frame_rate
        many = f"{count} frame{'s' if count != 1 else ''} of {width}×{height}"
        return f"<Video: {many} at {rate:g}/s, seed {request.seed}, {quoted(request.prompt, 60)}>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What notebooks show: the video as an MP4 that plays in the page, and `repr` elsewhere."""
        shown = {"text/plain": repr(self)}
        encoded = self._mp4()
        if len(encoded) <= MOST_SHOWN:
            from html import escape  # for notebooks alone

            source = f"data:video/mp4;base64,{b64encode(encoded).decode('ascii')}"
            controls = f'controls loop muted autoplay title="{escape(repr(self))}"'
            shown["text/html"] = f'<video {controls} src="{source}"></video>'
        return shown

    def _mp4(self) -> bytes:
        with tempfile.TemporaryDirectory(prefix="ltxrt-") as folder:
            return self.save(Path(folder) / "video.mp4", metadata=False).read_bytes()
