"""What the scripts of the docs share: commands typed as in a shell, and a page filled with what came of them."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from tomogen.cli.__main__ import main as tomogen

DOCS = Path(__file__).parent
END = "<!-- end -->"


def asked(about: str, arguments: list[str] | None, *given: str) -> argparse.Namespace:
    """What a script is told: folders that it is `given`, `out`, to work in, and whether to go its whole way `tiny`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in given:
        parser.add_argument(name, type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tiny", action="store_true")
    return parser.parse_args(arguments)


def typed(command: str) -> None:
    """Run a command as the shell would; end here if it fails."""
    print(f"$ {command}", flush=True)
    try:
        tomogen([*shlex.split(command)[1:], "-q"])
    except SystemExit as done:
        if done.code:
            raise


def all_typed(commands: Sequence[str], cases: Path) -> None:
    """Run commands one by one; those that draw or prepare scans only where the folder `cases` is not there yet."""
    there = cases.is_dir()
    for command in commands:
        if not (there and command.startswith(("tomogen phantom", "tomogen prepare"))):
            typed(command)


def filled(page: str, start: str, text: str) -> None:
    """Put `text` between the marker `start` and the next end marker of a page; ValueError where it lacks one."""
    path = DOCS / page
    head, begun, rest = path.read_text(encoding="utf-8").partition(start)
    _, ended, tail = rest.partition(END)
    if not (begun and ended):
        raise ValueError(f"{path} has no place from {start} to {END}")
    path.write_text(f"{head}{start}\n{text}\n{END}{tail}", encoding="utf-8")
