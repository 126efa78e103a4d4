"""Video codecs in containers, by PyAV, which includes FFmpeg's libraries: no system package is needed."""

from __future__ import annotations

import contextlib
import os
from typing import Any, cast

import av
from av.video.reformatter import ColorRange, Colorspace

from ltxrt.engines.errors import LtxrtError
from ltxrt.runtime.media.formats.encoding import CODECS, FORMATS, THREADS, suffix_of
from ltxrt.runtime.media.formats.sink import Frame, Target, deep


class Encoded:
    """A video codec in a container."""

    def __init__(self, target: Target) -> None:
        suffix, self.deep = suffix_of(target.path), target.encoding.bit_depth > 8
        codec = CODECS[target.encoding.codec or ""]
        os.environ.setdefault("SVT_LOG", "1")  # errors alone; it writes to stderr by itself
        try:
            container = dict(FORMATS[suffix].container or {})
            # Absolute, because FFmpeg takes the part before a colon in a relative name for a protocol.
            name = str(target.path.absolute())
            self.container: Any = av.open(name, "w", options={"fflags": "+bitexact", **container})
            options = {"crf": str(target.encoding.crf), **codec.options}
            self.stream = cast(
                Any, self.container.add_stream(codec.encoder, rate=target.rate, options=options)
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise LtxrtError(
                f"this PyAV cannot encode {suffix} with {codec.encoder} ({error}); reinstall the package av"
            ) from error
        self.container.metadata.update(target.metadata)
        self.stream.height, self.stream.width = target.size
        self.stream.pix_fmt = codec.depths[target.encoding.bit_depth]
        # Kept, because the container replaces the stream's time base by its own (1/1000 s in WebM) with the
        # first packet, which comes after the encoder's look-ahead of 25 frames or more.
        self.time_base = self.stream.time_base = 1 / target.rate
        context: Any = self.stream.codec_context
        context.thread_count = THREADS
        context.flags |= av.codec.context.Flags.bitexact
        context.color_range, context.colorspace = 1, 1  # limited range, BT.709
        context.color_primaries, context.color_trc = 1, 1
        if codec.tag and suffix == ".mp4":
            context.codec_tag = codec.tag
        self.count = 0

    def write(self, frame: Frame) -> None:
        if self.deep:
            picture = av.VideoFrame.from_ndarray(deep(frame), format="rgb48le")
        else:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(
            format=self.stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        picture.pts, picture.time_base = self.count, self.time_base
        self.count += 1
        self.container.mux(self.stream.encode(picture))

    def finish(self) -> None:
        self.container.mux(self.stream.encode())
        self.container.close()

    def close(self) -> None:
        with contextlib.suppress(av.error.FFmpegError):  # of a file that is discarded
            self.container.close()
