"""Flags of the verbs that read scans: one for each field of `ReadOptions`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tomogen.formats import ReadOptions
    from tomogen.intensity import Window

_UNITS = {"KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40, "B": 1, "": 1}


def lengths(text: str) -> tuple[float, float, float]:
    """`1.5`, `1.5mm` or `2,0.7,0.7`: one length in mm, or three along (depth, height, width)."""
    try:
        numbers = [float(word.strip().removesuffix("mm")) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 3) or not all(0 < number < float("inf") for number in numbers):
        raise click.BadParameter(f"{text!r} is not a length such as 1.5, nor three such as 2,0.7,0.7")
    d, h, w = numbers * (3 // len(numbers))
    return d, h, w


def memory(text: str | int) -> int:
    """`8GB`, `500MB`, or plain bytes."""
    spelled = str(text).strip().upper()
    unit = next(unit for unit in _UNITS if spelled.endswith(unit))
    try:
        found = int(float(spelled.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError):
        found = 0
    if found <= 0:
        raise click.BadParameter(f"{text!r} is not a size such as 8GB")
    return found


def ends(text: "str | Window") -> "Window":
    """`-1000,400`: the two ends of a window in HU."""
    from tomogen.intensity import Window

    if isinstance(text, Window):
        return text
    try:
        low, high = (float(word) for word in text.split(","))
        return Window(low, high)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a window such as -1000,400") from None


def reading(spacing: str = "--spacing") -> tuple[Callable[..., Any], ...]:
    """Click options in the order of the fields of `ReadOptions`; `spacing` is what that flag is called."""
    return (
        click.option("--series", default=None, metavar="UID", help="SeriesInstanceUID to take among several."),
        click.option("--modality", default="CT", show_default=True, help="DICOM modality to accept; any accepts all."),
        click.option("--strict", is_flag=True, help="Stop at the first damaged slice."),
        click.option("--fill-gaps", is_flag=True, help="Interpolate missing slices."),
        click.option("--untilt", is_flag=True, help="Resample gantry-tilted scans onto right angles."),
        click.option("--assume-hu", is_flag=True, help="Take values without a rescale as HU."),
        click.option(
            "--window-of", type=ends, default=None, metavar="LOW,HIGH", help="HU that the grey values of pictures span."
        ),
        click.option(
            "--volume", type=click.IntRange(0), default=None, metavar="T",
            help="Which volume of a 4D file to take, from 0.",
        ),
        click.option(
            spacing, type=lengths, default=None, metavar="MM",
            help="Spacing of files that tell none: 1.5, or depth,height,width as 2,0.7,0.7.",
        ),
        click.option("--axes", default=None, metavar="SPL", help="Orientation of files that tell none, by axis."),
        click.option(
            "--max-volume", type=memory, default=8 * 2**30, metavar="SIZE",
            help="Refuse scans that declare more; 8GB by default.",
        ),
    )  # fmt: skip


READING = reading()
"""The flags of a verb that reads, under their own names."""


def taken(parameters: dict[str, Any]) -> "ReadOptions":
    """The reading flags out of a verb's parameters, which lose them."""
    from dataclasses import fields

    from tomogen.formats import ReadOptions

    return ReadOptions(**{field.name: parameters.pop(field.name) for field in fields(ReadOptions)})
