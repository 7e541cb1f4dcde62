"""`tomogen phantom`: chest-like scans of nobody."""

import click

from tomogen.cli._core import Streams, verb


def phantom(
    streams: Streams,
    out: str,
    n: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] | None,
    seed: int,
    pairs: bool,
    contrast: str | None,
    noise: float,
    table: bool,
    format: str,
    workers: int,
    overwrite: bool,
) -> None:
    """Write N chest-like scans of nobody into the folder OUT, each of another patient.

    With --pairs every patient lies there twice on one grid: OUT/phantom-0001/CT1 is plain, CT2 has contrast;
    vessels.nii.gz beside them labels the blood.
    """
    from tomogen.phantoms import cohort

    with streams.progress("phantoms") as progress:
        made = cohort.phantom(
            out,
            n=n,
            shape=shape,
            spacing=spacing,
            seed=seed,
            pairs=pairs,
            contrast=contrast,
            noise=noise,
            table=table,
            format=format,
            workers=workers,
            overwrite=overwrite,
            progress=progress,
        )
    streams.result(made, str(made.out))


command = verb(
    click.argument("out", type=click.Path(path_type=str)),
    click.option("--n", type=click.IntRange(1), default=8, show_default=True, help="How many phantoms."),
    click.option(
        "--shape", type=click.IntRange(8), nargs=3, default=(128, 256, 256), show_default=True,
        help="Voxels: depth, height, width.",
    ),
    click.option(
        "--spacing", type=click.FloatRange(0, min_open=True), nargs=3, default=None,
        help="mm along depth, height, width; by default the thorax fills the grid.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other patients."),
    click.option("--pairs", is_flag=True, help="Each patient plain (CT1) and with contrast (CT2)."),
    click.option(
        "--contrast", type=click.Choice(["arterial", "venous"]), default=None,
        help="Phase of the contrast agent; a pair's CT2 is arterial unless this says otherwise.",
    ),
    click.option(
        "--noise", type=click.FloatRange(0), default=10.0, show_default=True, help="Standard deviation of noise in HU."
    ),
    click.option("--table", is_flag=True, help="Draw the scanner's table below the patient."),
    click.option("--format", default="dicom", show_default=True, help="Formats, such as dicom,nii."),
    click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes."),
    click.option("--overwrite", is_flag=True, help="Replace the phantoms that OUT holds."),
)(phantom)  # fmt: skip
