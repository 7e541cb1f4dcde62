"""`tomogen report`: a run as one self-contained HTML page."""

from pathlib import Path

import click

from tomogen.cli._core import Streams, verb


def report(
    streams: Streams, run: Path, out: Path | None, data: Path | None, samples: Path | None, overwrite: bool
) -> None:
    """Write one HTML page about RUN: pictures, curves, facts, recipe. OUT is a folder, by default RUN/report."""
    from tomogen.reporting.page import report as twin

    with streams.progress("report") as progress:
        page = twin(run, out, data=data, samples=samples, overwrite=overwrite, progress=progress)
    streams.result({"page": page}, str(page))


_folder = click.Path(path_type=Path)
command = verb(
    click.argument("run", type=_folder),
    click.argument("out", type=_folder, required=False),
    click.option("--data", type=_folder, help="The prepared folder: real cases beside the made ones."),
    click.option("--samples", type=_folder, help="A folder that `sample` wrote."),
    click.option("--overwrite", is_flag=True, help="Replace an earlier page."),
)(report)
