"""A pair of scans as `prepare` handles it: a finding of two halves, that reads as two volumes on one grid."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tomogen.cases.pairs import check
from tomogen.cases.pairs.motion import Motion, motion, moved
from tomogen.cases.scan import Finding
from tomogen.cases.steps import straight, upright
from tomogen.cases.work import digest
from tomogen.errors import TomogenError
from tomogen.formats.dicom.series import place
from tomogen.volume import Volume


class Halves(NamedTuple):
    """The two scans of a pair on one grid, upright."""

    source: Volume
    target: Volume
    """Moved onto the source where that was asked for and needed."""
    digests: tuple[str, str]
    """Of both as they were read."""
    motion: Motion
    """From the source to where the target lay."""
    moved: bool
    """Whether the target was moved onto the source."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Pair(Finding):
    """A source and a target of one patient; a finding whose files are those of both."""

    source: Finding
    target: Finding
    words: tuple[str, str] = ("CT1", "CT2")
    """What messages call the halves."""
    ordered: bool = True
    """Whether the words say that the target has contrast and the source none."""
    register: bool = False
    """Whether a target that lies elsewhere is moved onto the source."""

    @classmethod
    def of(cls, source: Finding, target: Finding, **more: Any) -> "Pair":
        """A pair of two findings; refused as soon as one of them is."""
        bad = next((half for half in (source, target) if half.verdict == "refuse"), None)
        return cls(
            path=place((*source.files, *target.files)),
            files=(*source.files, *target.files),
            format=source.format,
            verdict="use" if bad is None else "refuse",
            reason=None if bad is None else bad.reason,
            detail="" if bad is None else f"{bad.path.name}: {bad.detail}",
            fix=None if bad is None else bad.fix,
            warnings=tuple(dict.fromkeys((*source.warnings, *target.warnings))),
            shape=source.shape,
            spacing=source.spacing,
            modality=source.modality,
            patient=source.patient or target.patient,
            series=None,
            options=source.options,
            source=source,
            target=target,
            **more,
        )

    def halves(self) -> Halves:
        """Both scans, checked: of one patient, on one grid, the target in its place, the contrast where it belongs.

        Raises:
            DataInvalid: a half cannot be used, or they are no pair; the message says what differs, and by how much.
        """
        try:
            return self._halves()
        except TomogenError as error:
            error.at = error.at or str(self.path)
            raise

    def _halves(self) -> Halves:
        one, other = self.words
        check.patients(self.source, self.target, self.words)
        source, target = (upright(half.read()) for half in (self.source, self.target))
        check.unlike_voxels(source, target, self.words)
        digests = digest(source), digest(target)
        if not self.register:
            check.frames(self.source, self.target, self.words)
            check.grids(source, target, self.words)
            target = replace(target, affine=source.affine)
        measured = motion(source, target)
        off = not check.aligned(measured, source)
        if off and not self.register:
            raise check.misaligned(measured, self.words)
        moving = off or not check.same_grid(source, target)
        if moving:
            target = moved(target, source, measured)
        notes = check.bodies(source, target, self.words)
        if off:
            left = motion(source, target)
            if not check.aligned(left, source, check.AFTER):
                raise check.misaligned(left, self.words, again=True)
            notes += (f"{other} lay {measured} from {one} and was moved onto it; {left.distance:.1f} mm are left",)
        elif moving:
            notes += (f"{other} lay on another grid and was resampled onto that of {one}",)
        notes += check.order(source, target, self.words, strict=self.ordered)
        return Halves(straight(source), straight(target), digests, measured, moving, notes)
