"""`tomogen prepare IN... OUT`: scans of any format to a folder of cases that `train` takes."""

from typing import TYPE_CHECKING, Any

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._pairs import PAIRS, PUBLISHED
from tomogen.cli._reading import lengths, reading, taken

if TYPE_CHECKING:
    from tomogen.cases.prepare import PrepareResult

LISTED = 10
"""Refused scans named on a terminal; `-v` and `--json` name all."""


def prepare(
    streams: Streams,
    sources: tuple[str, ...],
    out: str,
    spacing: tuple[float, float, float] | None,
    own_spacing: tuple[float, float, float] | None,
    **options: Any,
) -> int:
    """Prepare every CT scan under IN (files and folders, any mix of formats) as cases in the folder OUT.

    Scans are turned to one orientation, the table is removed, and the body is resampled, low-pass filtered, onto
    the grid that --shape and --spacing ask for. Patients are divided into train, val and test. With --pairs a case
    is two scans of a patient on one grid, a source and the target to be made of it. The same command goes on after
    an interruption.
    """
    from tomogen.cases.prepare import prepare as make

    options["spacing"] = own_spacing
    own = taken(options)
    with streams.progress("prepare") as progress:
        result = make(sources, out, spacing=spacing, **options, options=own, progress=progress)
    for warning in result.warnings:
        streams.warn(warning)
    shown = len(result.refused) if streams.verbose else LISTED
    for refusal in (*result.failed, *result.refused[:shown]):
        fix = f"; fix: {refusal.fix}" if refusal.fix else ""
        say = streams.warn if refusal.failed else streams.note
        say(f"{'failed' if refusal.failed else 'not used'}: {refusal.path}: {refusal.detail}{fix}")
    if len(result.refused) > shown:
        streams.note(f"not used: {len(result.refused) - shown} more; -v lists them")
    streams.result(result, _summary(result))
    return 8 if result.failed else 0


def _summary(result: "PrepareResult") -> str:
    what = "pairs" if result.pairs else "scans"
    lines = [f"{result.folder}: {result.scans} {what}, {result.cases} cases"]
    if not result.complete:
        return f"{lines[0]}; the last shard, or the command without --shard, writes the catalog"
    lines[0] += f", {result.patients} patients"
    lines.append(", ".join(f"{name} {count}" for name, count in result.splits.items()))
    if result.spacing is not None:
        lines.append("spacing " + " x ".join(f"{mm:.4g}" for mm in result.spacing) + " mm (median)")
    if result.copies:
        lines.append(f"{result.copies} {what} hold the voxels of another and count once")
    if result.radiographs:
        lines.append(f"{result.radiographs} radiographs beside them")
    if result.registered:
        lines.append(f"{result.registered} targets were moved onto their sources")
    return "\n".join(lines)


command = verb(
    click.argument("sources", metavar="IN...", nargs=-1, required=True),
    click.argument("out", metavar="OUT"),
    click.option(
        "--shape",
        type=click.IntRange(1),
        nargs=3,
        metavar="D H W",
        help="Voxels of every case. Alone: the body fills them.",
    ),
    click.option(
        "--spacing", type=lengths, metavar="MM", help="Voxel spacing: 1.5, or depth,height,width as 2,0.7,0.7."
    ),
    click.option("--slab", type=click.IntRange(1), metavar="N", help="Cut each scan into cases of N axial slices."),
    click.option("--window", type=float, nargs=2, metavar="LOW HIGH", help="Clip stored values to this HU range."),
    click.option(
        "--fit",
        type=click.Choice(["contain", "stretch"]),
        default="contain",
        show_default=True,
        help="With --shape alone: keep proportions and pad, or scale each axis by itself.",
    ),
    click.option(
        "--body-mask/--no-body-mask",
        default=True,
        show_default=True,
        help="Set all that is not the patient to the HU floor.",
    ),
    click.option("--patients", metavar="CSV", help="Columns path,patient and perhaps split: who is on which scan."),
    click.option("--pairs", is_flag=False, flag_value=PUBLISHED, metavar="[LAYOUT]", help=PAIRS),
    click.option("--register", is_flag=True, help="Of pairs: move a target that lies elsewhere onto its source."),
    click.option(
        "--radiographs",
        metavar="FOLDER",
        help="Real radiographs to store beside the cases, for CycleGAN to learn from.",
    ),
    click.option(
        "--split",
        type=float,
        nargs=3,
        default=(0.8, 0.1, 0.1),
        show_default=True,
        metavar="TRAIN VAL TEST",
        help="Shares of the patients.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, another split."),
    click.option("--workers", type=click.IntRange(1), help="Processes; otherwise as many as processors."),
    click.option("--shard", metavar="I/N", help="Prepare part I of N, for array jobs; the last one ends the work."),
    click.option("--overwrite", is_flag=True, help="Remove the cases that OUT holds and start anew."),
    *reading(spacing="--own-spacing"),
)(prepare)
