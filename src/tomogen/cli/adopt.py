"""`tomogen adopt`: weights that others trained become a run."""

import click

from tomogen.cli._core import Streams, verb


def adopt(streams: Streams, weights: str, out: str, discriminator: str | None, overwrite: bool) -> None:
    """Make the run folder OUT of WEIGHTS, the generator's .pth file of X2CT-GAN's released code.

    Biplanar or single view, of any size; `reconstruct` takes the run, which holds no checkpoint to train on from. Files
    are read as tensors and nothing else: no code in them is run.
    """
    from tomogen.adoption import adopt as take

    run = take(weights, out, discriminator, overwrite=overwrite)
    streams.result({"out": run.path, "recipe": run.name, "run": run.identifier}, str(run.path))


command = verb(
    click.argument("weights", metavar="WEIGHTS"),
    click.argument("out", metavar="OUT"),
    click.option(
        "--discriminator", metavar="FILE", default=None, help="The discriminator's .pth file, kept with the run."
    ),
    click.option("--overwrite", is_flag=True, help="Replace the run in OUT."),
)(adopt)
