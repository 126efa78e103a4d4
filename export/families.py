"""The model families that can be exported, and what the module of one provides.

Imports nothing heavy, and no family's module must: the commands' help is made from them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ltxrt.engines.errors import InputError, setting

if TYPE_CHECKING:
    from ltxrt.engines.description import Description
    from ltxrt.engines.families.preview import Preview
    from ltxrt.engines.progress import Report
    from ltxrt.export.checkpoint.part import Checkpoint
    from ltxrt.export.components import Component

# Name in the bundle → module. The first opens what no other recognises, and says what is wrong with it.
FAMILIES = {"ltx-video": "ltxrt.export.ltxv.family"}


@dataclass(frozen=True)
class Source:
    """What can be given beside a checkpoint: an option of `ltx-export onnx`, for a part from elsewhere.

    A path, or the name of files on the hub (`ltxrt.export.hub`).
    """

    name: str
    option: str
    metavar: str
    help: str
    multiple: bool = False
    folders: tuple[str, ...] = ()  # of a repository of models, where the part is


class Family(Protocol):
    """The module of a family."""

    COMPONENTS: tuple[str, ...]
    SOURCES: tuple[Source, ...]
    # A value for every symbol of the contracts: distinct, and none of them 1, so that the tracer takes no two
    # axes for one another and none for a constant. They leave no mark in the graph.
    TRACE_SIZES: Mapping[str, int]

    def recognises(self, path: Path, /) -> bool:
        """Whether the file or folder is this family's; never raises for one that is damaged."""

    def open_checkpoint(
        self, path: Path, sources: Mapping[str, Any], version: str | None, check: bool = True, /
    ) -> Checkpoint:
        """The checkpoint with what `sources` gives, by `Source.name`. Raises CheckpointError.

        `check` compares tensors with configs, for which torch builds the networks, without weights.
        """

    def components(self) -> Mapping[str, Component]:
        """How each component is made. Imports torch."""

    def facts(self, checkpoint: Any, /) -> Any:
        """What the runtime must know. Raises CheckpointError where parts do not belong together."""

    def presets(self, checkpoint: Any, /) -> Mapping[str, Any]:
        """The release's settings, by name; one is `default`."""

    def describe(self, checkpoint: Any, /) -> list[str]:
        """Lines for `ltx-export inspect`."""

    def describe_part(self, path: Path, /) -> Description | None:
        """What a file or folder is that is given beside a checkpoint, or made for one; None for others."""

    def companions(self, checkpoint: Any, components: Sequence[str], /) -> Mapping[str, Sequence[str]]:
        """What is downloaded with a checkpoint of the hub, by `Source.name`: parts that it lacks and that
        `components`, or all if there are none, are made from."""

    REPOSITORIES: tuple[str, ...]  # on the hub, to find what a wrong name may have meant
    PREVIEWED: str  # the component whose export also fits the colours of previews

    def preview(self, checkpoint: Any, report: Report, /) -> Preview | None:
        """The map from latents to colours, fitted to the checkpoint; None where there is none."""

    def notes(self, checkpoint: Any, names: Sequence[str], whole: bool, /) -> list[str]:
        """Lines before an export of `names`; `whole` where everything there is was asked for."""


def family(name: str) -> Family:
    """The module of one."""
    return cast(Family, importlib.import_module(FAMILIES[name]))


def of(path: Path) -> Family:
    """The family of the checkpoint at `path`; the first of all for what none recognises."""
    fallback, *others = FAMILIES
    return family(next((name for name in others if family(name).recognises(path)), fallback))


def open_checkpoint(
    path: Path | str, version: str | None = None, *, check: bool = True, **sources: Any
) -> Checkpoint:
    """The checkpoint at `path`, of whichever family, with what is given beside it by `Source.name`.

    `version` says which release it is where the file does not tell. Raises CheckpointError for what cannot be
    read, InputError for a source that the family does not take. `check` compares tensors with configs, for
    which torch is loaded.
    """
    found = of(Path(path))
    given = {name: source for name, source in sources.items() if source}
    foreign = sorted(given.keys() - {source.name for source in found.SOURCES})
    if foreign:
        raise InputError(f"{setting(foreign[0])} is not for this model; leave it out")
    return found.open_checkpoint(Path(path), given, version, check)


def sources() -> list[Source]:
    """What may be given beside a checkpoint of any family, each option once."""
    found = {source.option: source for name in FAMILIES for source in family(name).SOURCES}
    return list(found.values())


def repositories() -> list[str]:
    """Every repository of some family on the hub."""
    return list(dict.fromkeys(repo for name in FAMILIES for repo in family(name).REPOSITORIES))


def component_names() -> list[str]:
    """Every name that a component has in some family."""
    return list(dict.fromkeys(c for name in FAMILIES for c in family(name).COMPONENTS))
