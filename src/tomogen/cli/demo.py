"""`tomogen demo`: the whole way, from phantoms to new scans and a report, in minutes on two cores."""

from pathlib import Path

import click

from tomogen.cli._core import Streams, verb


def demo(
    streams: Streams, out: Path, seed: int, n: int, steps: int | None, threads: int | None, overwrite: bool
) -> None:
    """Phantoms to synthetic scans in under four minutes on two cores, offline.

    Writes OUT/scans (phantoms of nobody, DICOM and NIfTI), OUT/cases (prepared), OUT/run (a trained wgan3d_tiny),
    OUT/samples (new scans as DICOM, NIfTI, GIF and pictures) and OUT/report/index.html, which shows all of it and how
    near the samples come to phantoms that were not trained on.
    """
    from tomogen.showcase import demo as twin

    with streams.progress("demo") as progress:
        made = twin(out, seed=seed, n=n, steps=steps, threads=threads, overwrite=overwrite, progress=progress)
    streams.note(f"made in {made.seconds:.0f} s; the same way verb by verb: {made.out}/demo.log")
    streams.note(
        f"KID to phantoms never seen: {made.kid:.3g}, before training {made.kid_untrained:.3g} (0 is the best)"
    )
    streams.result(made, str(made.report))


command = verb(
    click.argument("out", type=click.Path(path_type=Path), default="demo"),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of phantoms, training, samples."
    ),
    click.option("--n", type=click.IntRange(8), default=32, show_default=True, help="Phantoms to train on."),
    click.option("--steps", type=click.IntRange(1), help="Training steps; by default the recipe's."),
    click.option("--threads", type=click.IntRange(1), help="Processor threads of the training."),
    click.option("--overwrite", is_flag=True, help="Replace what an earlier demo made in OUT."),
)(demo)
