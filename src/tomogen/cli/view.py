"""`tomogen view IN OUT`: a scan as a picture."""

from typing import Any, Literal

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken


def view(
    streams: Streams,
    source: str,
    out: str,
    style: Literal["sheet", "strip", "planes"],
    window: str,
    overwrite: bool,
    **reading: Any,
) -> None:
    """Draw the scan IN as the picture OUT: a contact sheet, a strip of 32 slices or three planes.

    A name that ends in .gif gives a flight through all slices, .dcm a DICOM Secondary Capture. The patient's right is
    on the left, proportions are true; several windows lie one above the other.
    """
    from tomogen.conversion import view as make

    made = make(source, out, style=style, window=window, overwrite=overwrite, options=taken(reading))
    streams.result(made, made.out)


command = verb(
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option(
        "--style", type=click.Choice(["sheet", "strip", "planes"]), default="sheet", show_default=True,
        help="Contact sheet, strip of 32 slices, or axial, coronal and sagittal plane.",
    ),
    click.option(
        "--window", default="full", show_default=True, metavar="WINDOWS",
        help="lung, mediastinum, bone, full, or LOW..HIGH; several by comma.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace OUT."),
    *READING,
)(view)  # fmt: skip
