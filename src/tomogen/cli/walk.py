"""`tomogen walk RUN OUT.gif`: a film of what lies between samples."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb


class Several(click.Option):
    """A flag that takes all the numbers after it: `--seeds 1 2 3`, where click knows a fixed count or one each."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Have the parser hand each further number to the flag."""
        super().add_to_parser(parser, ctx)
        option = parser._long_opt[self.opts[0]]
        process = option.process

        def numbers(value: Any, state: Any) -> None:
            process(value, state)
            while state.rargs and state.rargs[0].isdecimal():
                process(state.rargs.pop(0), state)

        option.process = numbers


def _two(context: click.Context, option: click.Parameter, value: tuple[str, str] | None) -> tuple[str, str] | None:
    """Two scans: click hands over the next flag as the second where that is forgotten."""
    if value and any(name.startswith("--") for name in value):
        given = " ".join(name for name in value if not name.startswith("--")) or "none"
        raise click.BadParameter(f"two scans are needed, A and B; given: {given}", context, option)
    return value


def walk(streams: Streams, run: str, out: str, **options: Any) -> None:
    """Draw the way through samples of RUN and back to the first, as the animated picture OUT.gif.

    --seeds names them: each is the first sample of its seed, as `tomogen sample` makes it. Between two there is what
    the model has between them. --scans goes from one real scan to another, through the codes of a VAE. A frame is a
    slice, or three planes.
    """
    from tomogen.generation.walk import walk as make

    with streams.progress("walk") as progress:
        made = make(run, out, **options, progress=progress)
    streams.note(f"{made.frames} frames of {made.width} x {made.height}")
    streams.result(made, str(made.out))


command = verb(
    click.argument("run", metavar="RUN"),
    click.argument("out", metavar="OUT.gif"),
    click.option(
        "--seeds",
        cls=Several,
        type=click.IntRange(0),
        multiple=True,
        metavar="SEED SEED...",
        help="Where to go through, two or more: --seeds 1 2 3.",
    ),
    click.option(
        "--scans", nargs=2, metavar="A B", callback=_two, help="Go from scan A to scan B; scans or their codes."
    ),
    click.option(
        "--frames",
        type=click.IntRange(2),
        default=24,
        show_default=True,
        help="Frames from one to the next.",
    ),
    click.option(
        "--truncation", type=float, metavar="0..1", help="Of stylegan2: styles drawn to their mean, as in sample."
    ),
    click.option("--label", metavar="NAME", help="Of a run with classes: go through this one."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace OUT.gif if it is there."),
)(walk)
