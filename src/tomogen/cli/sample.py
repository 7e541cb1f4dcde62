"""`tomogen sample RUN OUT`: new scans from a trained model."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb


def sample(streams: Streams, run: str, out: str, **options: Any) -> None:
    """Make N scans with the model of RUN and write them into the folder OUT.

    The same run, seed and number give the same scan. Values are Hounsfield units; a model of slices makes slices.
    --truncation, --mix and --noise are for runs of stylegan2, --label for those that learnt classes, --around for
    runs of a VAE.
    """
    from tomogen.generation.sample import sample as make

    with streams.progress("sample") as progress:
        made = make(run, out, **options, progress=progress)
    streams.result(made, str(made.out))


command = verb(
    click.argument("run", metavar="RUN"),
    click.argument("out", metavar="OUT"),
    click.option("--n", type=click.IntRange(1), default=1, show_default=True, help="How many."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another seed, other scans."),
    click.option("--format", default="nii", show_default=True, help="Formats by comma: dicom,nii,png,gif and others."),
    click.option(
        "--truncation",
        type=float,
        metavar="0..1",
        help="Styles drawn to their mean: 1 as trained, 0.7 more typical and more alike, 0 the mean scan.",
    ),
    click.option(
        "--mix",
        type=click.IntRange(1),
        nargs=2,
        metavar="A B",
        help="One scan of two samples of the seed: coarse layers of A, fine ones of B.",
    ),
    click.option("--crossover", type=int, metavar="L", help="Of --mix: how many layers are A's; 0 gives B."),
    click.option("--noise", metavar="LAYERS", help="Layers with noise: all, none, or by number, coarse first: 0,1,2."),
    click.option("--label", metavar="NAME", help="Make this class; otherwise each sample picks one."),
    click.option(
        "--around", metavar="SCAN", help="Draw around a scan, or around its code as `tomogen encode` writes it."
    ),
    click.option(
        "--alpha", type=float, metavar="A", help="Of --around: how far, in deviations; 0 reconstructs, 1 if not given."
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the samples that OUT holds; other files stay."),
)(sample)
