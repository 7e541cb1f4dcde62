"""`tomogen translate RUN IN OUT`: one scan into another, such as non-contrast to contrast CT."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken


def translate(
    streams: Streams,
    run: str,
    source: str,
    out: str,
    format: str,
    resample: bool,
    device: str,
    overwrite: bool,
    **reading: Any,
) -> None:
    """Translate the scan IN with a RUN of pix2pix3d and write it as OUT, on the same grid, in HU.

    The ending of OUT tells the format (no ending: a DICOM series). A DICOM series made of a DICOM series is derived
    from it: it KEEPS the patient's identity, the study and the frame of reference, and each slice names its source.
    Only the body is translated; prints by how many HU overlapping tiles differ. What is made is an estimate, NOT a
    measurement: not for diagnosis.
    """
    from tomogen.generation.translate import translate as make

    with streams.progress("translate") as progress:
        made = make(
            run,
            source,
            out,
            format=format,
            resample=resample,
            device=device,
            overwrite=overwrite,
            options=taken(reading),
            progress=progress,
        )
    seam = "" if made.seam is None else f", seam {made.seam:.2f} HU"
    streams.note(
        f"{' x '.join(map(str, made.shape))} voxels, {made.share:.0%} of them translated; "
        f"{made.tiles} tile{'s' * (made.tiles != 1)}{seam}; {made.hu[0]} to {made.hu[1]} HU"
    )
    streams.result(made, "\n".join(map(str, made.files)))


command = verb(
    click.argument("run", metavar="RUN"),
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option(
        "--format", default="", metavar="FORMATS", help="Formats by comma, each OUT with its ending: dicom,nii,nrrd."
    ),
    click.option("--resample", is_flag=True, help="Work on the spacing that the run learnt from, and come back."),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
        help="What computes.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what is there under the same names."),
    *READING,
)(translate)  # fmt: skip
