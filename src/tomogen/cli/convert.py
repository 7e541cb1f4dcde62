"""`tomogen convert IN OUT`: scans in another format, as pictures, and back."""

from typing import TYPE_CHECKING, Any

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken

if TYPE_CHECKING:
    from tomogen.conversion import ConvertResult

LISTED = 10
"""What is no scan, named on a terminal; `-v` and `--json` name all."""


def convert(
    streams: Streams,
    source: str,
    out: str,
    to: str,
    window: str,
    skip_blank: bool,
    patients: str | None,
    enhanced: bool,
    rle: bool,
    overwrite: bool,
    **reading: Any,
) -> int:
    """Write the scan IN in another format: HU and the place of every voxel are kept, except in pictures.

    With --to, OUT is a folder and files are named for IN; without, the ending of OUT tells the format (no ending: a
    DICOM series). As endings png and jpg are contact sheets. gif is a flight through the slices, slices one exact PNG
    for every slice (with --window: 8-bit), jpegs one JPEG.

    --to png (or jpg) takes any number of scans under IN and makes OUT a set of pictures: every axial slice in every
    --window, a folder for each, under pseudonyms, and pictures.csv, which says what each picture shows. Without
    --window they are 16-bit and exact. `convert OUT SCANS --to nii` makes scans of such a set again. Exit code 8:
    some scans failed, failed.jsonl lists them, the rest was written.
    """
    from tomogen.conversion import convert as make

    with streams.progress("convert") as progress:
        made = make(
            source, out, to=to, window=window, skip_blank=skip_blank, patients=patients, enhanced=enhanced, rle=rle,
            overwrite=overwrite, options=taken(reading), progress=progress,
        )  # fmt: skip
    for warning in made.warnings:
        streams.warn(warning)
    shown = len(made.refused) if streams.verbose else LISTED
    for refusal in (*made.failed, *made.refused[:shown]):
        fix = f"; fix: {refusal.fix}" if refusal.fix else ""
        say = streams.warn if refusal.failed else streams.note
        say(f"{'failed' if refusal.failed else 'not used'}: {refusal.path}: {refusal.detail}{fix}")
    if len(made.refused) > shown:
        streams.note(f"not used: {len(made.refused) - shown} more; -v lists them")
    for line in _told(made, skip_blank):
        streams.note(line)
    streams.result(made, "\n".join(made.files))
    return 8 if made.failed else 0


def _told(made: "ConvertResult", skip_blank: bool) -> list[str]:
    """What is said of a conversion beside its files."""
    lines = []
    if made.shape and made.spacing and made.hu:
        voxels, spacing = " x ".join(map(str, made.shape)), " x ".join(f"{mm:.4g}" for mm in made.spacing)
        lines.append(f"{voxels} voxels, {spacing} mm, {made.orientation}, {made.hu[0]:g} to {made.hu[1]:g} HU")
    if made.patients is not None:
        lines.append(
            f"{_count(made.pictures, 'picture')} of " * bool(made.pictures)
            + f"{_count(made.slices, 'slice')}, {_count(made.scans, 'scan')}, {_count(made.patients, 'patient')}"
        )
    if made.blank or skip_blank:
        lines.append(f"{_count(made.blank, 'blank slice')} {'left out' if made.pictures else 'became air'}")
    if made.copies:
        lines.append(f"{_count(made.copies, 'scan')} left out: another holds the same voxels")
    if made.accuracy:
        if all(one.error == 0 for one in made.accuracy):
            lines.append("exact: whole HU come back as they are")
        else:
            spans = ", ".join(f"{one.low:g} to {one.high:g} HU: {_bound(one.error)}" for one in made.accuracy)
            jpeg = " (JPEG, lossy: as far as was seen)" if any(one.lossy for one in made.accuracy) else ""
            lines.append(f"HU come back within{jpeg}: {spans}; beyond, clipped")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _bound(error: float) -> str:
    return f"{error:.3g}" if error < float("inf") else "unknown, no window shows them"


command = verb(
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option(
        "--to", default="", metavar="FORMATS", help="Formats by comma: dicom,nii,nrrd,mha,slices,gif; png or jpg."
    ),
    click.option(
        "--window", default="", metavar="WINDOWS",
        help="For pictures: lung (level -600, width 1500 HU), mediastinum (40, 400), bone (500, 2000), full (-300, "
        "1400), or LOW,HIGH; several by comma.",
    ),
    click.option("--skip-blank", is_flag=True, help="Leave out slices of which the body fills less than 1 %."),
    click.option(
        "--patients", default=None, metavar="CSV", help="Whose scans are whose: columns path, patient; as in prepare."
    ),
    click.option("--enhanced", is_flag=True, help="DICOM as one file of many frames (Enhanced CT)."),
    click.option("--rle", is_flag=True, help="Compress DICOM pixels without loss."),
    click.option("--overwrite", is_flag=True, help="Replace what is there under the same names."),
    *READING,
)(convert)  # fmt: skip
