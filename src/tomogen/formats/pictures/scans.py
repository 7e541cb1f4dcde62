"""Scans out of a set of pictures: a folder with `pictures.csv`."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tomogen import hounsfield
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault
from tomogen.formats import DEFAULT, Header, ReadOptions, capped
from tomogen.formats.pictures import slices, table
from tomogen.formats.pictures.merge import BITS, merged
from tomogen.formats.pictures.table import Depicted, View
from tomogen.volume import Acquisition, Volume

AIR = -1000
"""HU of a slice that was left out as blank."""


def header(path: Path, options: ReadOptions = DEFAULT) -> Header:
    """Shape and affine of the one scan of a set; raises as `the_one`."""
    scan = the_one(path, options)
    return Header(scan.shape, scan.affine)


def read(path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The one scan of a set; raises as `the_one` and `volume`."""
    return volume(the_one(path, options), path, options)


def the_one(path: Path, options: ReadOptions) -> Depicted:
    """The scan in the set `path` that `--series` names, or the only one.

    Raises:
        InputMissing, DataInvalid: as `table.read` says; several scans and none chosen.
    """
    found = table.read(path / table.NAME)
    names = [scan.name for scan in found]
    chosen = [scan for scan in found if options.series in (None, scan.name)]
    if len(chosen) == 1:
        return chosen[0]
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    what = f"{len(names)} scans: {listed}" if options.series is None else f"no scan {options.series!r}; {listed}"
    raise DataInvalid(what, reason=Reason.SEVERAL, at=path, fix=f"--series {names[0]}")


def volume(scan: Depicted, path: Path, options: ReadOptions = DEFAULT) -> Volume:
    """The HU of a scan, from every window of its pictures (see `merge`); blank slices are air.

    Raises:
        UsageFault: `--window-of` says otherwise.
        InputMissing: a picture is not there.
        DataInvalid: damaged, in colour, or of another size than the CSV says; values that are no HU.
    """
    if options.window_of is not None:
        raise UsageFault(
            f"{table.NAME} says which HU the grey values span",
            at=path / table.NAME,
            fix="leave --window-of out, or name a folder of pictures without that CSV",
        )
    capped(scan.shape, np.dtype(np.float32), path, options)
    hu: NDArray[np.float32] = np.full(scan.shape, AIR, np.float32)
    scales = [view.scale for view in scan.views]
    for k in scan.slices:
        hu[k] = merged([_greys(view, k, scan) for view in scan.views], scales)
    checked = hounsfield.check(hu, at=path, assume_hu=True)
    return Volume(checked, scan.affine, Acquisition(synthetic=scan.synthetic))


def _greys(view: View, k: int, scan: Depicted) -> NDArray[np.generic]:
    try:
        return _as_listed(view, k, scan)
    except (DataInvalid, InputMissing) as error:
        # In a set a picture cannot be left out or made grey by hand: the scan would be another.
        error.fix = "put the file back" if isinstance(error, InputMissing) else "put the picture back as it was"
        error.fix += ", or make the pictures again"
        raise


def _as_listed(view: View, k: int, scan: Depicted) -> NDArray[np.generic]:
    """Grey values of the picture of slice `k`, if it is what the CSV says."""
    picture = slices.look(view.files[k])
    _, height, width = scan.shape
    top = slices.GREY[picture.mode]
    if (picture.height, picture.width, top) != (height, width, view.scale.top):
        raise DataInvalid(
            f"{picture.width} x {picture.height} pixels of {BITS[top]} bits, "
            f"{width} x {height} of {BITS[view.scale.top]} expected",
            reason=Reason.MIXED, at=picture.path,
        )  # fmt: skip
    return slices.pixels(picture)
