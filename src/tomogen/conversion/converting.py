"""The verb `convert`: a scan to other formats, any number of scans to pictures of their slices, and those back."""

from dataclasses import replace
from pathlib import Path

from tomogen import formats
from tomogen.conversion import files
from tomogen.conversion.files import Wanted
from tomogen.conversion.result import ConvertResult, of_one
from tomogen.errors import UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.formats.pictures import table
from tomogen.intensity import windows
from tomogen.progress import Progress, silent

SETS = ("png", "jpg")
"""Words of `to` that make a set of pictures; as endings of `out` they make a contact sheet."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: str = "",
    window: str = "",
    skip_blank: bool = False,
    patients: str | Path | None = None,
    enhanced: bool = False,
    rle: bool = False,
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> ConvertResult:
    """Write the scan `source` in other formats: HU and the place of every voxel are kept, except in pictures.

    With `to`, words such as `dicom,nii,nrrd,mha,slices`, `out` is a folder and each file is named for the
    source; without, the ending of `out` tells the format (none: a DICOM series). `window` (`lung,bone`, or
    `-1000,400`) is for pictures, one for each window; `slices` are exact without it. `enhanced` makes DICOM one
    file of many frames, `rle` compresses DICOM without loss.

    With `to="png"` or `"jpg"`, `source` may hold any number of scans, and `out` becomes a set of pictures: one of
    every axial slice in every window, a folder for each window, and `pictures.csv`, which tells what each picture
    shows. Scans and patients go by pseudonyms, and nothing tells what their files were called; `patients` is a CSV
    that says whose scans are whose, as in `prepare`. Without a window PNG are 16-bit and exact. `skip_blank` leaves
    out slices that hold none of the body. Other words of `to` beside it are for a single scan; the set then lies in
    `out/pictures`.

    Such a set (the folder, or its CSV) is converted back, with `to` each of its scans to files of its own, as
    exactly as its windows allow (`ConvertResult.accuracy`). What could not be read of many is in `failed`, and listed
    in `failed.jsonl`, by paths.

    Raises:
        UsageFault: an output is there and `overwrite` is not given; an unknown format or window.
        InputMissing, DataInvalid, DependencyMissing: as `formats.read` says; of many scans if all fail.
        Interrupted: stopped by Ctrl-C; nothing of a set stays.
    """
    source, out = Path(source), Path(out)
    source = source.parent if source.name == table.NAME else source
    words = [word for word in formats.endings(to) if word not in SETS]
    kinds = [word for word in formats.endings(to) if word in SETS]
    wanted = Wanted(",".join(words), windows(window), enhanced, rle, overwrite)
    if not kinds:
        _only_for_sets(skip_blank, patients)
        return _converted(source, out, wanted, options, progress)
    if len(kinds) > 1:
        raise UsageFault("a set of pictures is PNG or JPEG", fix="--to png, then --to jpg with another OUT")
    from tomogen.conversion import picturing

    drawing = picturing.Drawing(kinds[0], windows(window), skip_blank, patients, overwrite)
    place = out / "pictures" if words else out
    picturing.refuse(source, place, drawing)
    one = _converted(source, out, wanted, options, progress) if words else None
    made = picturing.picture(source, place, drawing, options, progress)
    return made if one is None else replace(made, files=(*one.files, *made.files))


def _only_for_sets(skip_blank: bool, patients: str | Path | None) -> None:
    if skip_blank or patients is not None:
        flag = "--skip-blank" if skip_blank else "--patients"
        raise UsageFault(f"{flag} is for sets of pictures", fix=f"--to png {flag}, or leave it out")


def _converted(source: Path, out: Path, wanted: Wanted, options: ReadOptions, progress: Progress) -> ConvertResult:
    from tomogen.conversion import recovery

    if recovery.is_set(source):
        return recovery.recover(source, out, wanted, options, progress)
    todo = files.jobs(source, out, formats.stem(source), wanted)
    volume = formats.read(source, options)
    return of_one(volume, files.write(volume, todo, wanted.rle))
