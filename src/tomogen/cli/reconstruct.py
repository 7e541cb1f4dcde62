"""`tomogen reconstruct`."""

import click

from tomogen.cli._core import Streams, verb


def reconstruct(
    streams: Streams,
    run: str,
    out: str,
    frontal: str | None,
    lateral: str | None,
    style: str | None,
    device: str,
    overwrite: bool,
) -> None:
    """Make a CT, the file or DICOM folder OUT, of a frontal and a lateral radiograph, with a RUN of x2ct.

    Radiographs are DICOM, PNG or JPEG; those that `xray` made tell their scale and room. Prints how
    well the CT explains each: the relative error of its own radiograph. What is made is an estimate from two shadows,
    NOT a measurement: not for diagnosis.
    """
    from tomogen.generation.reconstruct import reconstruct as make

    made = make(run, out, frontal=frontal, lateral=lateral, style=style, device=device, overwrite=overwrite)
    told = ", ".join(f"{view} {value:.3f}" for view, value in made.residuals.items())
    streams.note(f"residual of re-projection: {told}")
    streams.result(made, str(made.out))


command = verb(
    click.argument("run", metavar="RUN"),
    click.argument("out", metavar="OUT"),
    click.option("--frontal", metavar="FILE", default=None, help="PA or AP radiograph."),
    click.option("--lateral", metavar="FILE", default=None, help="Lateral radiograph of the same patient."),
    click.option(
        "--style", metavar="RUN", default=None, help="A CycleGAN run that makes real radiographs look computed first."
    ),
    click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
        help="What computes.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace OUT."),
)(reconstruct)  # fmt: skip
