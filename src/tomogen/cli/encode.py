"""`tomogen encode RUN IN OUT`: a scan to its code, and a code to its scan."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken


def encode(streams: Streams, run: str, source: str, out: str, device: str, overwrite: bool, **reading: Any) -> None:
    """Write the code that a RUN of a VAE has for the scan IN as OUT, or the scan of the code IN.

    IN may be of any format and size. Voxels unlike those of the run are resampled, HU are clipped to its window, and
    what it never saw, the table, is left out; says how well the scan comes back. OUT is a safetensors file: means and
    log-variances. With such a file as IN, OUT is a scan in the format of its ending (none: a DICOM series).

    A code names nobody, but it IS the patient's scan, less its details: keep it as you keep scans.
    """
    from tomogen.generation.encode import encode as make

    with streams.progress("encode") as progress:
        made = make(
            run, source, out, device=device, overwrite=overwrite, options=taken(reading), progress=progress
        )  # fmt: skip
    channels, *grid = made.code
    streams.note(
        f"{' x '.join(map(str, made.shape))} voxels of {' x '.join(f'{mm:.3g}' for mm in made.spacing)} mm; "
        f"a code of {channels} channels on {' x '.join(map(str, grid))}, {made.active} of them active, "
        f"{sum(made.kl):,.0f} nats"
    )
    if made.mae is not None:
        psnr = "" if made.psnr is None else f", PSNR {made.psnr:.1f} dB (peak {made.psnr_peak:g} HU, the run's window)"
        streams.note(f"comes back with a mean absolute error of {made.mae:.1f} HU{psnr}")
    streams.result(made, str(made.out))


command = verb(
    click.argument("run", metavar="RUN"),
    click.argument("source", metavar="IN"),
    click.argument("out", metavar="OUT"),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
        help="What computes.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace what is there under the same name."),
    *READING,
)(encode)  # fmt: skip
