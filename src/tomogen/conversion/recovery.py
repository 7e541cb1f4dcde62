"""A set of pictures back to scans."""

from pathlib import Path

from tomogen.cases.prepare import Refusal
from tomogen.conversion import files
from tomogen.conversion.files import Wanted
from tomogen.conversion.result import FAILED, ConvertResult, of_one, write_failed
from tomogen.errors import DataInvalid, TomogenError
from tomogen.formats import ReadOptions
from tomogen.formats.pictures import scans, table
from tomogen.formats.pictures.merge import Accuracy, accuracy
from tomogen.formats.pictures.table import Depicted
from tomogen.progress import Progress


def is_set(source: Path) -> bool:
    """Whether `source` is a folder with a `pictures.csv`."""
    return (source / table.NAME).is_file()


def recover(source: Path, out: Path, wanted: Wanted, options: ReadOptions, progress: Progress) -> ConvertResult:
    """Write the scans of a set: with `wanted.to` every one, into the folder `out`; otherwise the only one, as `out`.

    Raises:
        UsageFault: something is there already, or no format writes such a file.
        InputMissing, DataInvalid: the CSV is damaged; several scans for one file; no scan can be read.
    """
    if not wanted.to or options.series is not None:
        depicted = [scans.the_one(source, options)]
    else:
        depicted = list(table.read(source / table.NAME))
    todo = {one.name: files.jobs(source, out, one.name, wanted) for one in depicted}
    written: list[str] = []
    done: list[tuple[Depicted, ConvertResult]] = []
    errors: list[tuple[Depicted, TomogenError]] = []
    for number, one in enumerate(depicted):
        progress(number, len(depicted), one.name)
        try:
            volume = scans.volume(one, source, options)
        except TomogenError as error:
            errors.append((one, error))
            continue
        written += files.write(volume, todo[one.name], wanted.rle)
        done.append((one, of_one(volume, ())))
    if not done:
        raise errors[0][1]
    progress(len(depicted), len(depicted), f"scans tried, {len(done)} written" if errors else "scans written")
    failed = tuple(_refusal(one, error, source) for one, error in errors)
    if wanted.to:
        write_failed(out / FAILED, failed)
    single = done[0][1] if len(depicted) == 1 else ConvertResult(())
    return ConvertResult(
        files=tuple(written),
        shape=single.shape,
        spacing=single.spacing,
        orientation=single.orientation,
        hu=single.hu,
        scans=len(done),
        patients=len({one.patient or one.name for one, _ in done}),
        slices=sum(len(one.slices) for one, _ in done),
        blank=sum(one.blank for one, _ in done),
        accuracy=_accuracy([one for one, _ in done]),
        failed=failed,
    )


def _accuracy(depicted: list[Depicted]) -> tuple[Accuracy, ...]:
    """How exact all of the scans are, if all were drawn in the same windows."""
    found = {accuracy([view.scale for view in one.views]) for one in depicted}
    return found.pop() if len(found) == 1 else ()


def _refusal(one: Depicted, error: TomogenError, source: Path) -> Refusal:
    reason = str(error.reason) if isinstance(error, DataInvalid) else "unreadable"
    return Refusal(f"{error.at or source} ({one.name})", reason, error.what, error.fix, failed=True)
