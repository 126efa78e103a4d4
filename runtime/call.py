"""Calling a pipeline with a prompt and settings as keywords."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, Unpack, overload

from ltxrt.engines.errors import InputError, setting
from ltxrt.runtime.request.keywords import Keywords, check_settings
from ltxrt.runtime.request.request import Request

V = TypeVar("V")  # a family's video


class PromptCall(ABC, Generic[V]):
    """What can be called with a prompt, or with several."""

    @abstractmethod
    def plan(self, request: Request) -> Any:
        """The plan of a request; InputError for an impossible one."""

    @abstractmethod
    def encode_prompts(self, plans: Iterable[Any]) -> None:
        """Encode the prompts of several plans with one load of the text encoder."""

    @abstractmethod
    def generate(self, request: Request, watch: Callable[[Any], None] = ...) -> V:
        """The video of a request."""

    @overload
    def __call__(self, prompt: str, **settings: Unpack[Keywords]) -> V: ...

    @overload
    def __call__(self, prompt: list[str] | tuple[str, ...], **settings: Unpack[Keywords]) -> list[V]: ...

    def __call__(
        self, prompt: str | list[str] | tuple[str, ...], **settings: Unpack[Keywords]
    ) -> V | list[V]:
        """The video of a prompt, or for several prompts a list with a video of each.

        The keywords are the settings of `Request`, with the same defaults.

        Raises InputError for settings that are wrong, all prompts' before the first video is made, and
        UnknownKeywordError, which is a TypeError as well, for one that there is not.
        """
        check_settings(settings)
        if isinstance(prompt, str):
            return self.generate(Request(prompt, **settings))
        if not isinstance(prompt, list | tuple):
            raise InputError(
                f"{setting('prompt')} is of type {type(prompt).__name__}; give a text or several"
            )
        requests = [Request(one, **settings) for one in prompt]
        if len(requests) > 1:
            self.encode_prompts([self.plan(request) for request in requests])
        return [self.generate(request) for request in requests]
