"""`tomogen convert IN OUT`: a scan in another format."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken


def convert(
    streams: Streams,
    source: str,
    out: str,
    to: str,
    window: str,
    enhanced: bool,
    rle: bool,
    overwrite: bool,
    **reading: Any,
) -> None:
    """Write the scan IN in another format: HU and the place of every voxel are kept, except in pictures.

    With --to, OUT is a folder and files are named for IN; without, the ending of OUT tells the format (no ending: a
    DICOM series). Pictures: png and jpg are contact sheets, gif a flight through the slices, slices one exact PNG
    for every slice (with --window: 8-bit), jpegs one JPEG.
    """
    from tomogen.conversion import convert as make

    made = make(
        source, out, to=to, window=window, enhanced=enhanced, rle=rle, overwrite=overwrite, options=taken(reading)
    )
    streams.note(
        f"{' x '.join(map(str, made.shape))} voxels, {' x '.join(f'{mm:.4g}' for mm in made.spacing)} mm, "
        f"{made.orientation}, {made.hu[0]:g} to {made.hu[1]:g} HU"
    )
    streams.result(made, "\n".join(made.files))


command = verb(
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option("--to", default="", metavar="FORMATS", help="Formats by comma: dicom,nii,nrrd,mha,png,slices,gif."),
    click.option("--window", default="", metavar="WINDOWS", help="For pictures: lung,mediastinum,bone, or LOW..HIGH."),
    click.option("--enhanced", is_flag=True, help="DICOM as one file of many frames (Enhanced CT)."),
    click.option("--rle", is_flag=True, help="Compress DICOM pixels without loss."),
    click.option("--overwrite", is_flag=True, help="Replace what is there under the same names."),
    *READING,
)(convert)
