"""What every verb shares: streams, progress, exit codes, and errors as three short lines."""

import contextlib
import errno
import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import click

from tomogen.progress import leads

SCHEMA = 1
"""Version of every `--json` object."""


@dataclass
class Streams:
    """How a verb talks: the result to stdout, everything else to stderr; of several processes only the first."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    plain: bool = False
    debug: bool = False

    def result(self, value: Any, text: str) -> None:
        """Print the result: `text` for people, or `value` (a dataclass or mapping) as one JSON object."""
        if not leads():
            return
        if self.json:
            body = asdict(value) if is_dataclass(value) and not isinstance(value, type) else dict(value)
            click.echo(json.dumps({"schema": SCHEMA, **body}, default=_plain))
        elif text:
            click.echo(text)

    def note(self, text: str) -> None:
        """Say something on the way, unless `-q`."""
        if not self.quiet and leads():
            click.echo(text, err=True)

    def warn(self, text: str) -> None:
        """A warning: shown always."""
        if leads():
            click.echo(f"warning: {text}", err=True)

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int | None, str], None]]:
        """A `Progress` for the time of the block: a bar on a terminal, otherwise a line every 30 seconds."""
        if self.quiet or not leads():
            yield lambda done, total, what: None
        elif sys.stderr.isatty() and not self.plain and os.environ.get("TERM") != "dumb":
            with _bar(title) as update:
                yield update
        else:
            yield _lines(title)


def verb(*options: Callable[..., Any]) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function `(streams, **parameters)` a command with the flags that all verbs have.

    The function may return an exit code; errors become three lines and the code of their class.
    """

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        def run(*, quiet: bool, verbose: bool, json: bool, plain: bool, debug: bool, **parameters: Any) -> None:
            streams = Streams(quiet, verbose, json, plain, debug)
            with reported(debug), warnings.catch_warnings():
                warnings.showwarning = lambda message, *place, **more: streams.warn(str(message))
                sys.exit(function(streams, **parameters) or 0)

        command: Any = run
        for option in reversed([*options, *_COMMON]):
            command = option(command)
        return click.command(function.__name__.rstrip("_"), context_settings={"help_option_names": ["-h", "--help"]})(
            command
        )

    return decorate


_COMMON = (
    click.option("-q", "--quiet", is_flag=True, help="Only results, warnings and errors."),
    click.option("-v", "--verbose", is_flag=True, help="More of what happens."),
    click.option("--json", is_flag=True, help="The result as one JSON object on stdout."),
    click.option("--plain", is_flag=True, help="No bars, no colour."),
    click.option("--no-input", is_flag=True, expose_value=False, help="Never ask (nothing here ever asks)."),
    click.option("--debug", is_flag=True, help="Show tracebacks."),
)


@contextlib.contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn what is raised inside into a message on stderr and an exit code."""
    from tomogen.errors import TomogenError

    try:
        yield
    except TomogenError as error:
        if debug:
            raise
        _fail(error.what, error.at, error.fix, error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        _fail("interrupted", None, None, 130)
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise
    except MemoryError as error:
        if debug:
            raise
        _fail(f"out of memory: {error}", None, "a smaller --shape, --batch or --workers", 6)
    except OSError as error:
        if debug:
            raise
        _fail(*_of_system(error))
    except Exception as error:
        if debug:
            raise
        if type(error).__name__ == "OutOfMemoryError":
            _fail(str(error).splitlines()[0], None, "a smaller shape or batch: --set training.batch=1", 6)
        # The type alone: the text may quote a header.
        fix = "please report it; look through that file before you pass it on, it may quote your data"
        _fail(f"a bug of ours: {type(error).__name__}", _log(error), fix, 70)


def _of_system(error: OSError) -> tuple[str, str | None, str | None, int]:
    place = str(error.filename) if error.filename else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full", place, "free some space, or write elsewhere", 6
    if error.errno == errno.EROFS:
        return "cannot write: the file system is read-only", place, "write elsewhere", 3
    if isinstance(error, PermissionError):
        return f"permission denied{_owner(place)}", place, None, 3
    if isinstance(error, FileNotFoundError):
        return "no such file or folder", place, None, 3
    return (error.strerror or str(error)), place, None, 3


def _owner(place: str | None) -> str:
    try:
        status = Path(place or "").stat()
    except OSError:
        return ""
    return f" (owner {status.st_uid}, mode {status.st_mode & 0o777:o})"


def _fail(what: str, at: str | None, fix: str | None, code: int) -> None:
    click.echo(f"error: {what}", err=True)
    if at:
        click.echo(f"  at: {at}", err=True)
    if fix:
        click.echo(f"  fix: {fix}", err=True)
    sys.exit(code)


def _log(error: Exception) -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="tomogen-", suffix=".log", delete=False) as file:
        file.writelines(traceback.format_exception(error))
    return file.name


def _plain(value: Any) -> Any:
    """What JSON has no word for: paths, enumerations, arrays."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


@contextlib.contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int | None, str], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, what="")
        yield lambda done, total, what: progress.update(task, completed=done, total=total, what=what)


def _lines(title: str, every: float = 30.0) -> Callable[[int, int | None, str], None]:
    last = time.monotonic()

    def update(done: int, total: int | None, what: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every or (total is not None and done == total):
            last = time.monotonic()
            click.echo(f"{title}: {done}{f'/{total}' if total else ''} {what}".rstrip(), err=True)

    return update
