"""`tomogen sample RUN OUT`: new scans from a trained model."""

import click

from tomogen.cli._core import Streams, verb


def sample(streams: Streams, run: str, out: str, n: int, seed: int, format: str, device: str, overwrite: bool) -> None:
    """Make N scans with the model of RUN and write them into the folder OUT.

    The same run, seed and number give the same scan. Values are Hounsfield units; a model of slices makes slices.
    """
    from tomogen.generation.sample import sample as make

    with streams.progress("sample") as progress:
        made = make(run, out, n=n, seed=seed, format=format, device=device, overwrite=overwrite, progress=progress)
    streams.result(made, str(made.out))


command = verb(
    click.argument("run", metavar="RUN"),
    click.argument("out", metavar="OUT"),
    click.option("--n", type=click.IntRange(1), default=1, show_default=True, help="How many."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other scans."),
    click.option("--format", default="nii", show_default=True, help="Formats by comma: dicom,nii,png,gif and others."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the samples that OUT holds; other files stay."),
)(sample)
