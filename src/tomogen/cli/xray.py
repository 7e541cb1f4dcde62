"""`tomogen xray IN OUT`: radiographs computed from a scan."""

from typing import Any, Literal

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken


def ends(text: str) -> tuple[float, float]:
    """`0.5,7`: two numbers, the lower first."""
    try:
        low, high = (float(word) for word in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not two numbers such as 0.5,7") from None
    return low, high


def xray(
    streams: Streams,
    source: str,
    out: str,
    views: str,
    angle: tuple[float, ...],
    tilt: float,
    geometry: str,
    energy: float,
    size: int | None,
    format: str,
    form: Literal["log", "intensity"],
    range: tuple[float, float] | None,
    percentiles: tuple[float, float],
    invert: bool,
    bits: Literal[8, 16],
    body_mask: bool,
    device: str,
    overwrite: bool,
    **reading: Any,
) -> None:
    """Compute radiographs (DRRs) of the scan IN into the folder OUT: a file per view, and geometry.json.

    --geometry chest (1.8 m from source to detector, 500 mm seen at the isocentre) holds a whole chest. x2ct is the
    geometry published with X2CT-GAN (541 and 949 mm, 320 pixels over 500 mm): its field of view at the isocentre is
    only 285 mm, so the sides of most adults are cut, which is warned of. parallel has no magnification. A geometry.json
    from an earlier OUT is shot again, on any scan.

    Pictures hang as on a viewing box: the patient's right is on the left in PA and AP alike, the front of the chest is
    on the left in a (left) lateral. DICOM is written as Secondary Capture, since no X-ray was taken.
    """
    from tomogen.exposure import xray as shoot

    shot = shoot(
        source, out, views=views, angle=angle, tilt=tilt, geometry=geometry, energy=energy, size=size, format=format,
        form=form, range=range, percentiles=percentiles, invert=invert, bits=bits, body_mask=body_mask,
        device=device, overwrite=overwrite, options=taken(reading),
    )  # fmt: skip
    streams.note(
        f"{', '.join(shot.views)}: {shot.size[0]} x {shot.size[1]} pixels, "
        f"{shot.field_of_view[0]:.0f} x {shot.field_of_view[1]:.0f} mm at the isocentre, {shot.energy:g} keV"
    )
    streams.result(shot, "\n".join(shot.files))


command = verb(
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option(
        "--views", default="", metavar="VIEWS",
        help="By comma: pa, ap, lateral (left), right. Default pa,lateral, or just the --angle given.",
    ),
    click.option(
        "--angle", type=float, multiple=True, metavar="DEG",
        help="A view, as often as wanted: 0 is PA, 90 a left lateral, 180 from the front. Alone, or beside --views.",
    ),
    click.option("--tilt", type=float, default=0.0, metavar="DEG", help="Raise the source towards the head."),
    click.option(
        "--geometry", default="chest", show_default=True, metavar="NAME|FILE.json",
        help="chest, x2ct (sees only 285 mm at the isocentre), parallel, or a geometry.json.",
    ),
    click.option("--energy", type=float, default=60.0, show_default=True, metavar="KEV", help="20 to 150."),
    click.option("--size", type=click.IntRange(1, 8192), default=None, metavar="PX", help="Pixels across."),
    click.option(
        "--format", default="png", show_default=True, metavar="FORMATS",
        help="By comma: png, dicom (Secondary Capture), npy (line integrals, float32).",
    ),
    click.option(
        "--form", type=click.Choice(["log", "intensity"]), default="log", show_default=True,
        help="Show the line integral p, or 1 - exp(-p).",
    ),
    click.option(
        "--range", type=ends, default=None, metavar="LOW,HIGH",
        help="Values that become black and white, the same for all pictures.",
    ),
    click.option(
        "--percentiles", type=float, nargs=2, default=(1.0, 99.5), show_default=True, metavar="LOW HIGH",
        help="Without --range: of the patient's pixels in each picture.",
    ),
    click.option("--invert", is_flag=True, help="Bone black."),
    click.option(
        "--bits", type=click.Choice([8, 16]), default=8, show_default=True, help="Of the grey values."
    ),
    click.option(
        "--body-mask/--no-body-mask", default=True, show_default=True, help="Leave out table and clothes."
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
        help="What computes.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the radiographs that OUT holds."),
    *READING,
)(xray)  # fmt: skip
