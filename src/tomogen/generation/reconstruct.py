"""Reconstruction: radiographs of a chest, and a run that learnt from such, to a CT in true Hounsfield units."""

import hashlib
import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tomogen import formats
from tomogen.cases import films
from tomogen.errors import DataInvalid, Reason, RecipeMismatch, UsageFault
from tomogen.formats import Provenance
from tomogen.generation import xrays
from tomogen.generation.load import Loaded, load
from tomogen.radiography import geometry as stand
from tomogen.radiography import taken
from tomogen.radiography.agreement import OVERTURNED, UPRIGHT, agree, likely, swapped, uprightness
from tomogen.radiography.geometry import Geometry, Point, View
from tomogen.radiography.normal import normalised, seen
from tomogen.radiography.radiograph import KINDS, STRAIGHT, Radiograph
from tomogen.storage import free, replacing, whole

RECORD = ".reconstruction.json"
"""Ends the name of the file beside a reconstruction that tells what it was made of, and how well it explains that."""

POOR = 0.6
"""Residual from which a scan does not explain its radiographs: held-out phantoms have 0.06, real pairs 0.2 to 0.45."""

ASLANT = 2.0
"""Degrees between the directions of two views before a warning is due; from `geometry.NEAR` on they are refused."""

STANDING = 1.2
"""Magnification of a radiograph whose file does not tell: a chest 0.3 m before the detector, the source at 1.8 m."""

UNLIKE = 1.25
"""Ratio of the heights in mm of two pictures from which they are not of one stand."""

LOOKED_AT = 256
"""Pixels along each side of the whole pictures, as two of them are held against each other."""

BEAM = 0.01
"""Part by which the distances of two rooms may differ before a warning is due."""


@dataclass(frozen=True)
class ReconstructResult:
    """What was made."""

    out: Path
    record: Path
    """JSON beside it: the run, the pictures, the residuals."""
    run: str
    """Identifier of the run."""
    views: tuple[str, ...]
    shape: tuple[int, int, int]
    """Voxels along (depth, height, width)."""
    spacing: tuple[float, float, float]
    """mm along (depth, height, width)."""
    residuals: Mapping[str, float]
    """By view: how far the reconstruction's own radiograph is from the one given, ||a - b|| / ||b||."""
    isocentre: Point | None = None
    """LPS mm, where all pictures tell the same one: the scan's middle lies there, elsewhere at 0 mm."""
    style: str | None = None
    """Identifier of the run that made the radiographs look computed."""


@dataclass(frozen=True)
class Shot:
    """A radiograph that was given, and the room it was shot in where that is known."""

    path: Path
    picture: Radiograph
    kind: str
    """frontal or lateral: what it is given as."""
    view: View | None = None
    room: Geometry | None = None

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Mm between rows and columns in the plane of the isocentre."""
        if self.picture.spacing is None:
            return None
        factor = self.picture.magnification or STANDING
        if self.room is not None and self.view is not None:
            factor = self.room.magnification(self.view)
        rows, columns = self.picture.spacing
        return rows / factor, columns / factor


def reconstruct(
    run: str | Path,
    out: str | Path,
    *,
    frontal: str | Path | None = None,
    lateral: str | Path | None = None,
    style: str | Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> ReconstructResult:
    """Make a CT of a frontal and a lateral radiograph, or of the one that the run takes, and write it as `out`.

    The ending of `out` tells the format; without one it is a folder of DICOM slices. Radiographs are DICOM, PNG or
    JPEG. Where spacing is known (DICOM, and pictures of `xray`, by their text or the geometry.json beside) they are
    laid on the run's detector in mm; elsewhere borders are cut off and the rest is taken for what the run's beam sees.
    Where all tell the same isocentre, the scan's middle is put there. A lateral from the other
    side than the run's is mirrored. `style` is a CycleGAN run through which real radiographs pass first, computed ones
    do not. Dropout is off: the same radiographs give the same scan.

    The radiographs of the scan, shot in the run's room, are held against those given: the residuals are returned and
    written beside `out`, in a file of its name and `.reconstruction.json`. From `POOR` on they are warned of.

    Raises:
        InputMissing: no run, no weights, or a radiograph is not there.
        DataInvalid: what is given is no radiograph of a chest; two are one picture, of two patients, of unlike scale,
            upside down or in each other's place; a view is another than the run learnt from.
        RecipeMismatch: the run does not reconstruct, or makes no numbers; `style` does not restyle radiographs.
        UsageFault: too few or too many radiographs for the run; `out` is there and `overwrite` is not given, or cannot
            be written.
    """
    if str(out) == "-":
        raise UsageFault("a CT is a file or a folder, not a stream", at=out, fix="a name such as ct.nii.gz")
    out = Path(out)
    record = out.with_name(out.name + RECORD)
    formats.writes(out)
    _writable(out)
    for path in (out, record):
        free(path, overwrite)
    loaded = load(run, device)
    if not xrays.reconstructs(loaded):
        raise RecipeMismatch(
            f"the run is of {loaded.run.name}, which does not reconstruct from radiographs",
            at=run,
            fix="a run of x2ct_light or one of its kin: tomogen recipes list",
        )
    restyler = None if style is None else _restyler(style, device)
    shots = _shots(loaded, {"frontal": frontal, "lateral": lateral})
    _agreeing(shots)
    if restyler is not None and all(shot.picture.synthetic for shot in shots):
        warnings.warn("--style is for real radiographs; computed ones are taken as they are", stacklevel=2)
        restyler = None
    pictures = np.stack(
        [
            _seen(loaded, shot) if restyler is None or shot.picture.synthetic else _restyled(loaded, shot, restyler)
            for shot in shots
        ]
    )
    isocentre = _isocentre(shots)
    volume = xrays.scan_of(loaded, pictures, isocentre or (0.0, 0.0, 0.0))
    residuals = xrays.residuals(loaded, volume.hu, pictures)
    _explained(shots, residuals)

    source = "sha256:" + hashlib.sha256(pictures.tobytes()).hexdigest()[:16]
    told = ", ".join(f"{view} {value:.3f}" for view, value in residuals.items())
    provenance = Provenance(
        model=loaded.run.recipe.model, run=loaded.run.identifier, seed=0, index=1, source=source,
        description=f"CT estimated from {len(pictures)} radiographs; residual of re-projection {told}",
    )  # fmt: skip
    facts = {
        "schema": 1,
        "run": loaded.run.identifier,
        "recipe": loaded.run.name,
        "style": None if restyler is None else restyler.run.identifier,
        "source": source,
        "views": list(residuals),
        "residuals": residuals,
        "isocentre_mm": None if isocentre is None else list(isocentre),
        "geometry": stand.record(xrays.room(loaded)),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out):
        formats.write(volume, out, provenance)
    with whole(record) as partial:
        partial.write_text(json.dumps(facts, indent=1) + "\n")
    return ReconstructResult(
        out=out,
        record=record,
        run=loaded.run.identifier,
        views=tuple(residuals),
        shape=volume.shape,
        spacing=volume.spacing,
        residuals=residuals,
        isocentre=isocentre,
        style=None if restyler is None else restyler.run.identifier,
    )


def _shots(loaded: Loaded, given: Mapping[str, str | Path | None]) -> list[Shot]:
    """The radiographs that a run takes, in its order, once they can be of one patient.

    Raises:
        UsageFault, InputMissing, DataInvalid: as `reconstruct` says.
    """
    views = loaded.run.recipe.config.views
    wanted: dict[str, str] = {KINDS[STRAIGHT[view]]: view for view in views}
    for kind, path in given.items():
        if kind in wanted and path is None:
            raise UsageFault(
                f"the run reconstructs from {_counted(views)}; the {kind} one is not given",
                fix=f"--{kind} FILE" + (", or a run that takes one view" if len(views) > 1 else ""),
            )
        if kind not in wanted and path is not None:
            raise UsageFault(
                f"the run takes {', '.join(views)} alone; a {kind} radiograph is of no use to it",
                fix=f"without --{kind}, or a run that takes both views",
            )
    found = {kind: _shot(Path(path), kind) for kind, path in given.items() if path is not None}
    for kind, shot in found.items():
        _is(shot, wanted[kind])
    if len(found) == 2:
        _one_patient(found["frontal"], found["lateral"])
    shots = [_hung(found[kind], view) for kind, view in wanted.items()]
    mine = xrays.room(loaded)
    for shot, view in zip(shots, mine.views, strict=True):
        _one_room(shot, mine, view)
    return shots


def _shot(path: Path, kind: str) -> Shot:
    """A radiograph, with what its text, or else the geometry.json beside it, tells of one that `xray` wrote."""
    picture = films.read(path)
    if picture.room is not None:
        return Shot(path, picture, kind, picture.room.views[0], picture.room)
    found = taken.beside(path, picture.pixels.shape)
    if found is None:
        return Shot(path, picture, kind)
    room, shown = found
    view = room.views[0]
    pixels = picture.pixels
    if picture.shown is None and shown is not None:
        pixels = taken.restored(pixels, shown, path)
    named = picture.view or stand.straight(view)
    told = replace(picture, pixels=pixels, spacing=room.pixel, synthetic=True, view=named, room=room)
    return Shot(path, told, kind, view, room)


def _is(shot: Shot, view: str) -> None:
    """Raise where a file says that a radiograph is not of the kind it is given as."""
    found = shot.picture.kind
    if found is not None and found != shot.kind:
        raise DataInvalid(
            f"a {found} radiograph is given as the {shot.kind} one",
            reason=Reason.MIXED,
            at=shot.path,
            fix="give each under its own flag: --frontal PA --lateral LATERAL",
        )
    if {shot.picture.view, view} == {"pa", "ap"}:
        warnings.warn(
            f"{shot.path.name} is {shot.picture.view.upper()}, the run learnt from {view.upper()}: "  # type: ignore[union-attr]
            "the heart is magnified otherwise",
            stacklevel=4,
        )


def _hung(shot: Shot, view: str) -> Shot:
    """A lateral radiograph from the other side than the run's, mirrored, so that the chest's front lies as there."""
    found = shot.picture.view
    if found is None or (found == "right") == (view == "right"):
        return shot
    warnings.warn(
        f"{shot.path.name} is a {'right' if found == 'right' else 'left'} lateral, the run learnt from the other side: "
        "it is mirrored; the heart is magnified otherwise",
        stacklevel=4,
    )
    mirrored = np.ascontiguousarray(shot.picture.pixels[:, ::-1])
    return replace(shot, picture=replace(shot.picture, pixels=mirrored, view=STRAIGHT[view]))


def _one_patient(frontal: Shot, lateral: Shot) -> None:
    """Raise where two radiographs cannot be of one patient in one room."""
    if frontal.path.resolve() == lateral.path.resolve() or np.array_equal(
        frontal.picture.pixels, lateral.picture.pixels
    ):
        raise DataInvalid(
            f"{frontal.path.name} is given as both radiographs, or {lateral.path.name} is a copy of it",
            reason=Reason.DUPLICATE,
            at=lateral.path,
            fix="--frontal PA --lateral LATERAL: two views of one patient",
        )
    patients = {frontal.picture.patient, lateral.picture.patient}
    if None not in patients and len(patients) == 2:
        raise DataInvalid(
            "the two radiographs are of two patients by their headers",
            reason=Reason.UNPAIRED,
            at=lateral.path,
            fix="two views of one patient; a PatientID that is wrong is to be mended in the file",
        )
    if frontal.spacing is not None and lateral.spacing is not None:
        heights = [shot.spacing[0] * shot.picture.pixels.shape[0] for shot in (frontal, lateral)]  # type: ignore[index]
        if max(heights) > UNLIKE * min(heights):
            raise DataInvalid(
                f"the frontal radiograph shows {heights[0]:.0f} mm from head to feet, the lateral {heights[1]:.0f} mm",
                reason=Reason.BAD_GEOMETRY,
                at=lateral.path,
                fix="two radiographs of one stand, or mend their spacing",
            )
    elif (frontal.spacing is None) != (lateral.spacing is None):
        lacking, has = (frontal, lateral) if frontal.spacing is None else (lateral, frontal)
        raise DataInvalid(
            f"{has.path.name} tells its spacing and {lacking.path.name} does not: their scales cannot be compared",
            reason=Reason.NO_GEOMETRY,
            at=lacking.path,
            fix=f"mend the spacing of {lacking.path.name} (ImagerPixelSpacing of DICOM; pictures of `xray` as it wrote "
            "them), or give both without: as PNG of the same frame",
        )


def _one_room(shot: Shot, mine: Geometry, view: View) -> None:
    """Warn where a picture was shot from elsewhere than the run's were.

    Raises:
        DataInvalid: from so different a direction that it is another view.
    """
    if shot.room is None or shot.view is None:
        return
    aslant = stand.apart(shot.view, view)
    if aslant > ASLANT:
        angle, tilt = stand.angles(shot.view)
        raised = f" and tilt {tilt:.0f}" if abs(tilt) > 1 else ""
        says = (
            f"{shot.path.name} was shot at {angle:.0f} degrees{raised}, the run learnt from {stand.angles(view)[0]:.0f}"
        )
        if aslant > stand.NEAR:
            raise DataInvalid(says, reason=Reason.BAD_GEOMETRY, at=shot.path, fix=f"tomogen xray --views {view.name}")
        warnings.warn(says, stacklevel=4)
    theirs, ours = (
        np.linalg.norm(np.array([one.source, np.subtract(one.detector, one.source)]), axis=1)
        for one in (shot.view, view)
    )
    if shot.room.beam != mine.beam or np.abs(theirs / ours - 1).max() > BEAM:
        warnings.warn(
            f"{shot.path.name} was shot by a {shot.room.beam} beam, source at {theirs[0]:.0f} and detector at "
            f"{theirs[1]:.0f} mm; the run learnt from a {mine.beam} beam, {ours[0]:.0f} and {ours[1]:.0f} mm",
            stacklevel=4,
        )


def _agreeing(shots: Sequence[Shot]) -> None:
    """Raise where the pictures themselves say that they do not belong together; warn where they may not.

    Raises:
        DataInvalid: one is upside down, or they are of two patients.
    """
    by_kind = {shot.kind: seen(shot.picture, LOOKED_AT) for shot in shots}
    unstated = [shot for shot in shots if shot.picture.kind is None]
    if len(shots) == 1:
        shot = shots[0]
        looks = likely(by_kind[shot.kind])
        up = uprightness(by_kind[shot.kind])
        if shot.kind == "frontal" and up < UPRIGHT:
            raise DataInvalid(OVERTURNED, reason=Reason.BAD_GEOMETRY, at=shot.path, fix=_turning(shot))
        if unstated and looks != shot.kind:
            warnings.warn(f"{shot.path.name} looks {looks} and is given as the {shot.kind} radiograph", stacklevel=3)
        return
    frontal, lateral = by_kind["frontal"], by_kind["lateral"]
    if unstated and swapped(frontal, lateral):
        warnings.warn("the two radiographs look as if they were given in each other's place", stacklevel=3)
        return
    found = agree(frontal, lateral, computed=all(shot.picture.synthetic for shot in shots))
    paths = {shot.kind: shot for shot in shots}
    blamed = paths[found.view or "lateral"]
    if found.verdict == "upside down":
        raise DataInvalid(found.says, reason=Reason.UNPAIRED, at=blamed.path, fix=_turning(blamed))
    if found.verdict == "other patient":
        names = " and ".join(paths[kind].path.name for kind in ("frontal", "lateral"))
        raise DataInvalid(
            f"{names}: {found.says}", reason=Reason.UNPAIRED, at=blamed.path, fix="two upright views of one patient"
        )
    if found.verdict == "doubtful" and not _one_shooting(shots):
        first, second = (paths[kind].path.name for kind in ("frontal", "lateral"))
        warnings.warn(
            f"{first}, {second}: {found.says}; look whether both are upright, with white bone, and of one patient",
            stacklevel=3,
        )


def _one_shooting(shots: Sequence[Shot]) -> bool:
    """Whether all pictures say that they were computed in one room, about one point, and lie in one folder."""
    rooms = [shot.room for shot in shots if shot.room is not None]
    alike = {(room.beam, room.size, room.pixel, room.isocentre) for room in rooms}
    return len(rooms) == len(shots) and len(alike) == len({shot.path.resolve().parent for shot in shots}) == 1


def _isocentre(shots: Sequence[Shot]) -> Point | None:
    """The point in the patient about which all pictures were shot, where all tell the same one."""
    told = {None if shot.room is None else shot.room.isocentre for shot in shots}
    return told.pop() if len(told) == 1 else None


def _explained(shots: Sequence[Shot], residuals: Mapping[str, float]) -> None:
    """Warn of radiographs that the scan does not explain."""
    poor = [
        f"{shot.path.name} (residual {residual:.2f})"
        for shot, residual in zip(shots, residuals.values(), strict=True)
        if not residual < POOR
    ]
    if poor:
        warnings.warn(
            f"the scan does not explain {' and '.join(poor)}: it is likely wrong; look at the scale, the orientation "
            "and the view of the pictures, and whether the run has learnt enough",
            stacklevel=3,
        )


def _turning(shot: Shot) -> str:
    """What mends a picture that is upside down."""
    black = "" if shot.picture.shown is not None else "; where bone is black, invert it"
    return f"turn {shot.path.name} so that the head is up{black}"


def _counted(views: Sequence[str]) -> str:
    return f"one radiograph ({views[0]})" if len(views) == 1 else f"{len(views)} radiographs ({', '.join(views)})"


def _writable(out: Path) -> None:
    """Whether files can be made where `out` is to lie.

    Raises:
        UsageFault: they cannot.
    """
    folder = out.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageFault(
            f"cannot write into {folder}: {(error.strerror or 'no folder').lower()}", at=out, fix="another place"
        ) from None


def _seen(loaded: Loaded, shot: Shot, size: int | None = None) -> xrays.Pictures:
    """A radiograph as the run's networks see it, `(size, size)` on 0..1; by default of their size."""
    room = xrays.room(loaded)
    picture = replace(shot.picture, spacing=shot.spacing)
    return seen(picture, size or room.size[0], room.field_of_view(room.views[0]))


def _restyled(loaded: Loaded, shot: Shot, restyler: Loaded) -> xrays.Pictures:
    """A radiograph made to look computed, as the run's networks see it."""
    real = torch.from_numpy(2 * _seen(loaded, shot, restyler.synthesizer.shape[0]) - 1)
    with torch.inference_mode():
        styled: Any = restyler.synthesizer.restyle(real[None, None].to(restyler.device), towards="drr")  # type: ignore[operator]
    return normalised((styled[0, 0].float().cpu().numpy() + 1) / 2, xrays.room(loaded).size[0])


def _restyler(style: str | Path, device: str) -> Loaded:
    """The run that makes radiographs look computed.

    Raises:
        RecipeMismatch: it is of another kind.
    """
    loaded = load(style, device)
    if "drr" not in loaded.synthesizer.conditions:
        raise RecipeMismatch(
            f"--style takes a run of cyclegan or one of its kin, this one is of {loaded.run.name}",
            at=style,
            fix="a run of cyclegan_light: tomogen recipes list",
        )
    return loaded
