"""The verb `xray`: radiographs computed from a scan, and the geometry they were shot with."""

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomogen import formats
from tomogen.errors import DataInvalid, Reason, UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.radiography import geometry as stand
from tomogen.radiography.attenuation import ENERGY, attenuation, of_water
from tomogen.radiography.field import missed
from tomogen.radiography.geometry import Geometry, Point
from tomogen.radiography.look import SHOWN, Form, Look, pictured
from tomogen.radiography.projector import Projector
from tomogen.radiography.taken import GEOMETRY, Shown, note
from tomogen.storage import whole
from tomogen.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = {"png": ".png", "dicom": ".dcm", "npy": ".npy"}
"""Words of `--format`: grey values as PNG or DICOM Secondary Capture, line integrals as float32."""

TOLERATED = 0.005
"""Part of the patient that may lie outside the beam before a warning is due."""

FILLED = 0.5
"""Part of the picture's height, and of its width, that a scan is to fill before a warning is due."""


@dataclass(frozen=True)
class XrayResult:
    """What was shot."""

    out: str
    files: tuple[str, ...]
    views: tuple[str, ...]
    size: tuple[int, int]
    """Pixels (rows, columns)."""
    field_of_view: tuple[float, float]
    """mm (height, width) at the isocentre, of the first view."""
    isocentre: Point
    """LPS mm."""
    energy: float
    """keV."""
    outside: tuple[float, ...]
    """Part of the patient outside the beam, by view."""


def xray(
    source: str | Path,
    out: str | Path,
    *,
    views: str = "",
    angle: Sequence[float] = (),
    tilt: float = 0.0,
    geometry: str | Path = "chest",
    energy: float = ENERGY,
    size: int | None = None,
    format: str = "png",
    form: Form = "log",
    range: tuple[float, float] | None = None,
    percentiles: tuple[float, float] = SHOWN,
    invert: bool = False,
    bits: Literal[8, 16] = 8,
    body_mask: bool = True,
    device: str = "auto",
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
) -> XrayResult:
    """Compute radiographs of the scan `source` into the folder `out`: a file per view and format, and geometry.json.

    `views` are words such as `pa,ap,lateral,right`, `angle` degrees about the patient's long axis (0 is PA, 90 a
    left lateral), raised by `tilt`; PA and lateral if neither is given. `geometry` is `chest`, `x2ct`, `parallel` or a
    JSON file that an earlier call wrote, whose views are then shot, or those that `views` names. `energy` in keV;
    `size` pixels across the same detector; `format` of `png,dicom,npy`. Pictures show the line integral (`log`) or
    1 - exp(-p) (`intensity`) between the values of `range`, or those at `percentiles` of each picture.
    Without `body_mask` the table and whatever else was scanned is shot too.

    Warns where part of the patient lies outside the beam.

    Raises:
        UsageFault: an unknown word, a number out of range; `out` is there and `overwrite` is not given.
        InputMissing, DataInvalid, DependencyMissing: as `formats.read` says; a damaged geometry; a beam that misses
            the scan, or whose source lies in it.
    """
    import torch

    from tomogen.device import resolved

    out, source = Path(out), Path(source)
    look = Look(form=form, range=range, percentiles=percentiles, invert=invert, bits=bits)
    endings = _endings(format)
    of_water(energy)  # refuses before the scan is read
    asked = _geometry(str(geometry), views, tuple(angle), tilt)
    asked = asked if size is None else asked.resized(size)
    _free(out, source, overwrite)
    chosen = torch.device(resolved(device))
    volume = formats.read(source, options)
    scan = _patient(volume) if body_mask else volume.reorient()
    outside = tuple(missed(scan, asked, view) for view in asked.views)
    _told(asked, outside)
    _small(asked, scan)
    mu = attenuation(torch.as_tensor(scan.hu).to(chosen), energy)
    integrals: NDArray[np.float32] = Projector(asked, scan.shape, scan.affine)(mu[None])[0].cpu().numpy()

    isocentre = _point(scan.centre) if asked.isocentre is None else asked.isocentre
    fresh = out.with_name(f"{out.name}.new") if out.is_dir() and any(out.iterdir()) else out
    with whole(fresh) as partial:
        partial.mkdir()
        ends: dict[str, tuple[float, float]] = {}
        names = []
        for number, (view, values) in enumerate(zip(asked.views, integrals, strict=True), start=1):
            grey, ends[view.name] = pictured(values, look)
            shown = Shown(form, *ends[view.name], bits, invert)
            for word, ending in endings.items():
                path = partial / f"{view.name}{ending}"
                names.append(path.name)
                if word == "npy":
                    np.save(path, values)
                elif word == "png":
                    _png(grey, path, volume, shown, replace(asked, views=(view,), isocentre=isocentre))
                else:
                    _dicom(grey, path, volume, asked, number, f"{energy:g} keV, {stand.digest(asked)}", shown)
        taken: dict[str, Any] = {
            "isocentre_mm": list(isocentre), "energy_kev": energy, "body_mask": body_mask, "form": form,
            "bits": bits, "inverted": invert, "black_and_white": {name: list(two) for name, two in ends.items()},
        }  # fmt: skip
        stand.save(asked, partial / GEOMETRY, taken)
    if fresh != out:
        shutil.rmtree(out)
        fresh.rename(out)
    return XrayResult(
        out=str(out),
        files=tuple(str(out / name) for name in [*names, GEOMETRY]),
        views=tuple(view.name for view in asked.views),
        size=asked.size,
        field_of_view=asked.field_of_view(asked.views[0]),
        isocentre=isocentre,
        energy=energy,
        outside=outside,
    )


def _geometry(name: str, views: str, angles: tuple[float, ...], tilt: float) -> Geometry:
    words = [word.strip().lower() for word in views.split(",") if word.strip()]
    if not name.lower().endswith(".json"):
        return stand.preset(name, [*words, *angles] or ["pa", "lateral"], tilt)
    if angles or tilt:
        raise UsageFault("a geometry file has its views; --angle and --tilt go with a named geometry", at=name)
    loaded = stand.load(Path(name))
    known = {view.name: view for view in loaded.views}
    if unknown := [word for word in words if word not in known]:
        raise UsageFault(f"the file has no view {unknown[0]!r}; its views: {', '.join(known)}", at=name)
    return replace(loaded, views=tuple(known[word] for word in dict.fromkeys(words))) if words else loaded


def _endings(words: str) -> "Mapping[str, str]":
    wanted = list(dict.fromkeys(word.strip().lower() for word in words.split(",") if word.strip()))
    if not wanted or (unknown := [word for word in wanted if word not in FORMATS]):
        said = repr(unknown[0]) if wanted else "''"
        raise UsageFault(f"radiographs are not written as {said}; formats: {', '.join(FORMATS)}")
    return {word: FORMATS[word] for word in wanted}


def _patient(volume: Volume) -> Volume:
    """The scan without its table."""
    from tomogen.cases.steps import find_body, only, upright

    scan = upright(volume)
    return only(scan, find_body(scan))


def _told(geometry: Geometry, outside: Sequence[float]) -> None:
    """Warn of what the beam misses.

    Raises:
        DataInvalid: it misses all.
    """
    chest = stand.preset("chest")
    for view, part in zip(geometry.views, outside, strict=True):
        height, width = geometry.field_of_view(view)
        wider = "; --geometry chest is wider" if width < chest.field_of_view(chest.views[0])[1] else ""
        seen = f"the beam is {height:.0f} x {width:.0f} mm at the isocentre"
        if part == 1:
            raise DataInvalid(
                f"view {view.name}: the beam misses the scan; {seen}",
                reason=Reason.BAD_GEOMETRY,
                fix='"isocentre_mm": null in the geometry file, to aim at the middle of any scan',
            )
        if part > TOLERATED:
            warnings.warn(
                f"view {view.name}: {part:.1%} of the patient lies outside the beam; {seen}{wider}",
                stacklevel=3,
            )


def _small(geometry: Geometry, scan: Volume) -> None:
    """Warn of a scan that fills little of its picture."""
    sees = geometry.field_of_view(geometry.views[0])
    depth, height, width = (n * mm for n, mm in zip(scan.shape, scan.spacing, strict=True))
    fills = depth, max(height, width)
    if all(has < FILLED * field for has, field in zip(fills, sees, strict=True)):
        warnings.warn(
            f"the scan is {fills[0]:.0f} mm high and {fills[1]:.0f} mm wide, the beam sees {sees[0]:.0f} x "
            f"{sees[1]:.0f} mm: most of the pictures is black; a geometry.json with a smaller pixel_mm sees less",
            stacklevel=3,
        )


def _free(out: Path, source: Path, overwrite: bool) -> None:
    """Whether radiographs may be written there."""
    if (
        out.exists()
        and source.exists()
        and (out.resolve() == source.resolve() or out.resolve() in source.resolve().parents)
    ):
        raise UsageFault("the output holds the scan itself", at=out, fix="another name")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise UsageFault("the output is there already", at=out, fix="--overwrite, or another name")
    written = {GEOMETRY, *FORMATS.values()}
    if not out.is_dir() or not (out / GEOMETRY).is_file():
        raise UsageFault("that is no folder of radiographs that we wrote", at=out, fix="another name")
    if not all(entry.is_file() and (entry.name in written or entry.suffix in written) for entry in out.iterdir()):
        raise UsageFault("the folder holds more than radiographs that we wrote", at=out, fix="another name")


def _png(grey: NDArray[Any], path: Path, volume: Volume, shown: Shown, room: Geometry) -> None:
    from PIL import Image

    from tomogen.formats import pictures

    said = formats.origin(volume, None) or "computed from CT by tomogen; no X-ray was taken; not for diagnosis"
    text = f"{said}; DRR, view {room.views[0].name}{note(shown, room)}"
    pictures.save([Image.fromarray(grey)], path, note=text)


def _dicom(
    grey: NDArray[Any], path: Path, volume: Volume, geometry: Geometry, number: int, description: str, shown: Shown
) -> None:
    from tomogen.formats.dicom import radiograph

    view = geometry.views[number - 1]
    factor = geometry.magnification(view)
    row, column = (mm / factor for mm in geometry.pixel)
    radiograph.write(
        grey,
        path,
        volume,
        name=view.name,
        number=number,
        spacing=(row, column),
        orientation=(_letters(view.right), _letters(view.down)),
        magnification=factor,
        description=description,
        shown=str(shown),
    )


def _letters(direction: Point) -> str:
    """DICOM's letters of a direction in the patient, the strongest first: L, LA, LPH."""
    letters = (("L", "R"), ("P", "A"), ("H", "F"))
    parts = sorted(zip(map(abs, direction), direction, letters, strict=True), key=lambda part: -part[0])
    return "".join(pair[int(x < 0)] for size, x, pair in parts if size > 0.02)


def _point(vector: NDArray[np.float64]) -> Point:
    x, y, z = (float(v) for v in vector)
    return x, y, z
