"""The base of all commands: a failure is one line on stderr, and the exit status tells its kind.

Exit status 2 is the user's mistake, 1 an internal or system error, 130 an interruption, 143 SIGTERM, after
which the command cleans up as after an interruption. The library's log is shown on stderr. Imports click and
the standard library only, so that `--help` is instant.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import click

from ltxrt.engines.errors import LtxrtError, worded
from ltxrt.engines.parsing import text
from ltxrt.engines.parsing.near import nearest
from ltxrt.engines.terminal import interrupts
from ltxrt.engines.terminal.interrupts import Terminated
from ltxrt.engines.terminal.interrupts import check_interrupted as check_interrupted  # cli modules use it
from ltxrt.engines.terminal.mode import Mode, choose, emit, mode

if TYPE_CHECKING:
    import logging

_DEBUG = "ltxrt.debug"
_NAMES = "ltxrt.names"
_LONGEST = 2000  # characters of a message at most
_drawings: list[Callable[[], AbstractContextManager[None]]] = []
# click ≥ 8.2 raises this instead of printing the help itself.
_SHOWS_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class _OneLine(click.ClickException):
    """A failure as it is printed: `message` is the whole line."""

    def __init__(self, message: str, exit_code: int, field: str | None = None) -> None:
        super().__init__(text.clipped(text.printable(" ".join(message.split())), _LONGEST))
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from the instance
        self.field, self.json = field, False

    def show(self, file: Any = None) -> None:
        if self.json:
            message = self.format_message().removeprefix("error: ")
            emit("error", message=message, field=self.field, exit_status=self.exit_code)
        else:
            click.echo(self.format_message(), file=file, err=file is None)


class _Plain:
    """Before a click type: only digits as people here write them, and not more than a number can have."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str):
            try:
                value = (
                    text.whole(value) if isinstance(self, click.types.IntParamType) else text.number(value)
                )
            except ValueError:
                raise click.BadParameter(_no_number(value, self), ctx, param) from None
        return super().convert(value, param, ctx)  # type: ignore[misc]


class _Whole(_Plain, click.types.IntParamType):
    """`type=int`."""


class _WholeRange(_Plain, click.IntRange):
    """`type=click.IntRange(…)`."""


class _Number(_Plain, click.types.FloatParamType):
    """`type=float`."""


class Choice(click.Choice):
    """`click.Choice`, which names the nearest choice."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(error.message + _meant(str(value), map(str, self.choices)), param, ctx)


def _meant(word: str, known: Iterable[str]) -> str:
    found = nearest(word, known)
    return f" Did you mean {found!r}?" if found else ""


def _no_number(given: str, kind: Any) -> str:
    if not isinstance(kind, click.types.IntParamType):
        return f"{text.quoted(given)} is not a valid float."
    return f"{text.quoted(given)} is not a valid integer of up to {text.DIGITS} digits."


def _plain(kind: click.ParamType) -> click.ParamType:
    """The type that reads a parameter: ours in place of click's numbers and choices."""
    if type(kind) is click.types.IntParamType:
        return _Whole()
    if type(kind) is click.types.FloatParamType:
        return _Number()
    if type(kind) is click.IntRange:
        return _WholeRange(kind.min, kind.max, kind.min_open, kind.max_open, kind.clamp)
    if type(kind) is click.Choice:
        return Choice(kind.choices, kind.case_sensitive)
    return kind


class LtxrtCommand(click.Command):
    """A click command whose failures are one line and whose numbers are plain; adds `--debug`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            parameter.type = _plain(parameter.type)
        self.params.append(_debug_option())

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with interrupts.interruptible():
            return super().main(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--json" in args and any("--json" in parameter.opts for parameter in self.params):
            choose(ctx, Mode.JSON)  # for errors in the options before it, and in those that do not exist
        with _one_line(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line(ctx), _notices() if ctx.parent is None else contextlib.nullcontext():
            return super().invoke(ctx)


class LtxrtGroup(LtxrtCommand, click.Group):
    """A click group whose own failures and whose subcommands' are one line.

    `meant`: what people call a subcommand elsewhere → its name, of groups of it as "engines list".
    """

    command_class = LtxrtCommand

    def __init__(self, *args: Any, meant: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._meant = meant or {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-") and not ctx.resilient_parsing:
            known = {name: name for name in self.list_commands(ctx)} | dict(self._meant)
            meant = nearest(word, known)
            hint = f" Did you mean {known[meant]!r}?" if meant else ""
            ctx.fail(f"No such command {text.quoted(word)}.{hint}")
        return super().resolve_command(ctx, args)


def say(line: str, err: bool = False) -> None:
    """Print a line that may contain untrusted names, and names of settings (`errors.setting`).

    Control characters are escaped; settings are shown as the running command's options.
    """
    with contextlib.ExitStack() as stack:
        for pause in _drawings:
            stack.enter_context(pause())
        click.echo(said(line), err=err)


def said(line: str) -> str:
    """A line as `say` prints it."""
    ctx = click.get_current_context(silent=True)
    known = worded(line, (lambda name: called(ctx, name)) if ctx else str)
    return "\n".join(map(text.printable, known.split("\n")))


@contextmanager
def drawing(pause: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """While the block draws on the terminal, `say` prints its lines within `pause()`."""
    _drawings.append(pause)
    try:
        yield
    finally:
        _drawings.remove(pause)


def name_settings(names: Mapping[str, str]) -> None:
    """What messages of the running command call settings that it did not get by its options."""
    click.get_current_context().meta.setdefault(_NAMES, {}).update(names)


def called(ctx: click.Context, name: str) -> str:
    """A setting's name for the user of the running command: its option, or its field if it has none.

    The part behind a dot is the key of an option that takes KEY=VALUE.
    """
    if name in ctx.meta.get(_NAMES, {}):
        return str(ctx.meta[_NAMES][name])
    option, _, key = name.partition(".")
    dashed = f"--{option.replace('_', '-')}"
    options = [o.opts for o in ctx.command.params if isinstance(o, click.Option) and o.name == option]
    options += [o.opts for o in ctx.command.params if dashed in o.opts]
    flag = next(flag for flag in options[0] if flag.startswith("--")) if options else ""
    return f"{flag} {key.replace('_', '-')}".rstrip() if flag else name


def ltxrt_command(name: str | None = None, **attributes: Any) -> Any:
    """Decorator like `click.command`; `ltxrt_command(cls=LtxrtGroup)` is the one like `click.group`."""
    return click.command(name, **{"cls": LtxrtCommand, **attributes})


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        is_eager=True,  # eager, so that it applies while the other options are parsed
        expose_value=False,
        envvar="LTXRT_DEBUG",
        callback=_remember_debug,
        help="Show the traceback of a failure.",
    )


def _remember_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value or ctx.meta.get(_DEBUG, False)


@contextmanager
def _notices() -> Iterator[None]:
    """Around the command's work: shows the library's log."""
    import logging  # not for --help

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if mode() is Mode.JSON:
                emit("log", message=said(record.getMessage()))
            else:
                say(record.getMessage(), err=True)

    log, echo = logging.getLogger("ltxrt"), Echo()
    level = log.level
    log.addHandler(echo)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(echo)
        log.setLevel(level)


@contextmanager
def _one_line(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except (_OneLine, _SHOWS_HELP, click.exceptions.Exit, click.exceptions.Abort):
        raise
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            raise  # the reader of our output has closed it: click exits silently
        debug = ctx.meta.get(_DEBUG, False)
        if debug and not isinstance(error, click.ClickException):
            import traceback

            say(traceback.format_exc().rstrip("\n"), err=True)
        asked = interrupts.asked()
        cause = _interruption(error) or (asked() if asked else error)
        interrupts.settle()
        described = _describe(cause, ctx, debug)
        described.json = mode(ctx) is Mode.JSON
        raise described from error


def _field(error: click.UsageError) -> str | None:
    """The setting that a mistake in the command line is about, if click knows."""
    return getattr(getattr(error, "param", None), "name", None)


def _interruption(error: BaseException) -> KeyboardInterrupt | None:
    """The interruption that led to `error`, if one did.

    Interrupted code may raise another error: compiled modules raise ImportError after a Ctrl-C while they are
    loaded, and the package would be reported as missing.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None


def _describe(error: BaseException, ctx: click.Context, debug: bool) -> _OneLine:
    match error:
        case Terminated():
            return _OneLine("terminated", 143)
        case KeyboardInterrupt():
            return _OneLine("interrupted", 130)
        case click.UsageError():
            line = f"error: {error.format_message()} (see '{ctx.command_path} --help')"
            return _OneLine(line, error.exit_code, _field(error))
        case click.ClickException():
            return _OneLine(f"error: {error.format_message()}", error.exit_code)
        case LtxrtError():
            line = f"error: {error.worded(lambda name: called(ctx, name))}"
            return _OneLine(line, error.exit_code, error.field)
        case OSError(strerror=str()):  # the machine's: disk full, permission denied
            where = f": {error.filename}" if error.filename else ""
            return _OneLine(f"error: {error.strerror}{where}", 1)
        case MemoryError():
            return _OneLine("error: out of memory", 1)
    hint = "" if debug else "; run with --debug (or LTXRT_DEBUG=1) for the traceback"
    return _OneLine(f"internal error: {type(error).__name__}: {error}{hint}", 1)
