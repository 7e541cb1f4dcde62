"""Files <-> Volumes; one module per format, found by its file name.

A format module has `SUFFIXES` (endings it reads), `OUTPUTS` (the word for `--format`, and the ending it
writes; an empty ending is a folder), `read(path, options)` and `write(volume, path, provenance)`, and, where one
file is one scan, `header(path, options)`: what `read` will give, told (or refused) before any pixel is read. Words of
`OUTPUTS` whose files do not give the HU back are in `LOSSY`; of all others the tests demand it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tomogen import catalog
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault
from tomogen.intensity import Window
from tomogen.volume import Affine, Volume, affine_of


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How far a reader may go beyond what a file says of itself; each field is a flag of the same name."""

    series: str | None = None
    """SeriesInstanceUID to take where there are several."""
    modality: str = "CT"
    """Modality to accept; `any` accepts all."""
    strict: bool = False
    """Stop at the first damaged slice, where otherwise it is left out with a warning."""
    fill_gaps: bool = False
    """Interpolate missing slices."""
    untilt: bool = False
    """Resample a gantry-tilted scan onto a grid with right angles."""
    assume_hu: bool = False
    """Take values without a rescale as HU."""
    window_of: Window | None = None
    """HU range that the grey values of a picture span; without it a picture is no CT."""
    volume: int | None = None
    """Index along the fourth axis of a 4D file."""
    spacing: tuple[float, float, float] | None = None
    """mm along (depth, height, width), for files that carry none."""
    axes: str | None = None
    """Orientation such as `SPL` of the array axes, for files that carry none."""
    max_volume: int = 8 * 2**30
    """Bytes that one scan may declare."""


DEFAULT = ReadOptions()


@dataclass(frozen=True)
class Header:
    """What a file declares: voxels along (depth, height, width), and its affine to LPS mm."""

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres in mm along (depth, height, width)."""
        d, h, w = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(d), float(h), float(w)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What made a synthetic volume; formats that can, carry it along."""

    model: str
    """Name of the model, or `phantom`."""
    run: str
    """Identifier of the run: the same run, seed and index give the same UIDs."""
    seed: int
    index: int
    scan: int = 1
    """Which scan of this patient, counted from 1: a patient's scans share study and frame of reference."""
    source: str = ""
    """Digest of what it was made from, in place of noise or beside it."""
    description: str = ""


def read(path: str | Path, options: ReadOptions = DEFAULT) -> Volume:
    """The scan in a file, or in a folder that holds one DICOM series.

    Raises:
        InputMissing: there is nothing at `path`, or it cannot be read.
        DataInvalid: it is no usable CT; the reason says why.
        DependencyMissing: its compression needs a decoder that is not installed.
    """
    path = Path(path)
    if not path.exists():
        raise InputMissing(f"no such file or folder{near(path)}", at=path)
    volume: Volume = format_of(path).read(path, options)
    return volume


def write(volume: Volume, path: str | Path, provenance: Provenance | None = None) -> Path:
    """Write a scan in the format that the suffix names (none, or digits as in `1.2.840`: a folder of DICOM slices).

    The file appears under its name when it is whole. Returns the path.
    """
    path = Path(path)
    module = format_of(path) if ending_of(path) else catalog.load("formats", "dicom")
    module.write(volume, path, provenance)
    return path


def writes(path: Path) -> None:
    """Whether the ending of `path` names a format that a scan can be written in; none is a folder of DICOM slices.

    Raises:
        UsageFault: it names none.
    """
    if ending_of(path) and not path.name.lower().endswith(suffixes()):
        known = ", ".join(sorted(outputs()))
        raise UsageFault(f"no format writes {path.suffix}; formats: {known}", at=path, fix="another ending, or none")


SPACING = (0.01, 100.0)
"""mm; voxels smaller or larger belong to no CT."""

SKEW = 1e-3
"""Cosine between two axes from which a grid counts as sheared: 0.06 degrees, 0.5 mm across a chest."""


def placed(affine: Affine, path: Path) -> Affine:
    """An affine as it is, once it is known to be that of a scan.

    Raises:
        DataInvalid: not finite, axes that vanish or are not at right angles, voxels of impossible size.
    """
    if not np.isfinite(affine).all():
        raise DataInvalid("NaN or infinity in the affine", reason=Reason.BAD_GEOMETRY, at=path)
    with np.errstate(over="ignore"):
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing < SPACING[0]).any() or (spacing > SPACING[1]).any():
        sizes = " x ".join(f"{size:.4g}" for size in spacing)
        raise DataInvalid(
            f"voxels of {sizes} mm (depth, height, width), {SPACING[0]:g} to {SPACING[1]:g} expected",
            reason=Reason.BAD_GEOMETRY,
            at=path,
        )
    axes = affine[:3, :3] / spacing
    skew = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if skew > SKEW:
        angle = float(np.degrees(np.arcsin(min(1.0, skew))))
        raise DataInvalid(f"axes {angle:.1f} degrees off right angles", reason=Reason.BAD_GEOMETRY, at=path)
    return affine


def unplaced(path: Path, options: ReadOptions, what: str, spacing: tuple[float, float, float] | None = None) -> Affine:
    """The affine of a file that tells none, from `--spacing` and `--axes`; `spacing` is what the file does tell.

    Raises:
        DataInvalid: the options do not say either; `what` is what the file lacks.
    """
    spacing = options.spacing or spacing
    if spacing is None or options.axes is None:
        raise DataInvalid(
            what, reason=Reason.NO_GEOMETRY, at=path, fix="--spacing 2.5,0.7,0.7 --axes SPL, if that is so"
        )
    try:
        affine = affine_of(spacing, orientation=options.axes)
    except LookupError:
        raise UsageFault(f"axes name S/I, P/A and L/R in some order, such as SPL, not {options.axes!r}") from None
    return placed(affine, path)


def capped(shape: Sequence[int], dtype: "np.dtype[Any]", path: Path, options: ReadOptions) -> int:
    """Bytes of a scan of this shape, if the cap allows them.

    Raises:
        DataInvalid: it does not.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > options.max_volume:
        sizes = " x ".join(map(str, shape))
        raise DataInvalid(
            f"declares {min(size, 2**80) / 2**30:,.1f} GiB ({sizes}), cap {options.max_volume / 2**30:.3g}",
            reason=Reason.TOO_LARGE,
            at=path,
            fix="--max-volume, if that is right",
        )
    return size


def chosen(sizes: Sequence[int], path: Path, options: ReadOptions) -> tuple[tuple[int, int, int], int]:
    """Of sizes as files give them (width, height, depth, time, ...) the shape of the volume, and its number in time.

    Raises:
        DataInvalid: 2D, more than four axes, or several volumes and none chosen.
    """
    if len(sizes) < 3 or math.prod(sizes[4:]) > 1:
        by = " x ".join(map(str, sizes))
        raise DataInvalid(f"{len(sizes)}D ({by}), 3D expected", reason=Reason.DIMENSIONS, at=path)
    times = sizes[3] if len(sizes) > 3 else 1
    if options.volume is None and times > 1:
        raise DataInvalid(f"4D (t={times}), 3D expected", reason=Reason.DIMENSIONS, at=path, fix="--volume 0")
    wanted = options.volume or 0
    if not 0 <= wanted < times:
        raise DataInvalid(f"no volume {wanted} (t={times})", reason=Reason.DIMENSIONS, at=path, fix="--volume 0")
    return (sizes[2], sizes[1], sizes[0]), wanted


def beside(path: Path, name: str) -> Path:
    """The file of pixels that a header names; one below the header's own folder, whatever the name says.

    Raises:
        DataInvalid: it lies elsewhere, or is not there.
    """
    named = Path(name)
    if named.is_absolute() or ".." in named.parts or "\0" in name:
        raise DataInvalid("its file of pixels lies outside the folder", reason=Reason.CORRUPT, at=path)
    if not (path.parent / named).is_file():
        raise DataInvalid("its file of pixels is missing", reason=Reason.TRUNCATED, at=path)
    return path.parent / named


SYNTHETIC = "SYNTHETIC"
"""How the free text of a synthetic file begins, by which it is known again."""


def origin(volume: Volume, provenance: Provenance | None) -> str:
    """What a file's free text says of a synthetic volume; nothing for others. The most telling comes first."""
    if provenance is not None:
        drawn = f"seed {provenance.seed}, sample {provenance.index}"
        told = f"from {provenance.source}" if provenance.source else drawn
        made = f"tomogen/{provenance.model}, run {provenance.run}, {told}"
        return f"{SYNTHETIC}: {made}; not for diagnosis"
    return f"{SYNTHETIC}: tomogen; not for diagnosis" if volume.acquisition.synthetic else ""


def outputs() -> Mapping[str, str]:
    """The words that `--format` takes and the endings they stand for; an empty ending is a folder."""
    found: dict[str, str] = {}
    for name in catalog.names("formats"):
        found |= catalog.load("formats", name).OUTPUTS
    return found


def suffixes() -> tuple[str, ...]:
    """The endings of all formats, in small letters."""
    return tuple(ending for name in catalog.names("formats") for ending in catalog.load("formats", name).SUFFIXES)


def stem(path: Path) -> str:
    """The name without the ending of a format: `ct.nii.gz` is `ct`; the folder `1.2.840` stays `1.2.840`."""
    for ending in sorted(suffixes(), key=len, reverse=True):
        if path.name.lower().endswith(ending) and len(path.name) > len(ending):
            return path.name[: -len(ending)]
    return path.name


def ending_of(path: Path) -> str:
    """The suffix of a name; none where it is digits, since that is the end of an identifier."""
    return "" if path.suffix[1:].isdigit() else path.suffix


_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")


_ARRAYS = (".npy", ".npz", ".mat", ".h5", ".hdf5")


def format_of(path: Path) -> ModuleType:
    """The format module for a path: by suffix; then folders are pictures or DICOM, and files are asked as DICOM.

    Raises:
        DataInvalid: the suffix belongs to no format.
    """
    name = path.name.lower()
    for known in catalog.names("formats"):
        module = catalog.load("formats", known)
        if name.endswith(tuple(module.SUFFIXES)):
            return module
    dicom, pictures = catalog.load("formats", "dicom"), catalog.load("formats", "pictures")
    if pictures.recognises(path):
        return pictures
    if path.is_dir() or (path.is_file() and dicom.recognises(path)):
        return dicom
    raise DataInvalid(
        f"no format reads {path.suffix or 'a name without a suffix'}; formats: {', '.join(sorted(outputs()))}",
        reason=Reason.NOT_CT_FILE,
        at=path,
        fix=_instead(name),
    )


def _instead(name: str) -> str | None:
    """What to do with a file, by its name in small letters, that no format reads."""
    if name.endswith(_ARCHIVES):
        return "unpack it, then give the folder"
    if name.endswith(_ARRAYS):
        return "an array has no place: tomogen.write(tomogen.Volume(hu, affine), 'ct.nii.gz') gives it one"
    return None


def endings(words: str) -> dict[str, str]:
    """The endings for a comma-separated `--format` value, by word.

    Raises:
        UsageFault: a word is unknown; the message lists those that are.
    """
    known = outputs()
    wanted = [word.strip().lower() for word in words.split(",") if word.strip()]
    for word in wanted:
        if word not in known:
            raise UsageFault(f"no such format {word!r}; formats: {', '.join(sorted(known))}")
    return {word: known[word] for word in wanted}


def near(path: Path) -> str:
    """The end of a message that a path is not there: names beside it that are like it."""
    import difflib

    if not path.parent.is_dir():
        return ""
    near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=3)
    return f"; near names: {', '.join(near)}" if near else ""
