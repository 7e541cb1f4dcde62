"""What a run makes of the held-out cases, against the truth: where its model starts from something, or codes scans."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from tomogen.cases.folder import Case, CaseFolder
from tomogen.errors import DataInvalid, Reason, RecipeMismatch
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.floors import MeanScan
from tomogen.evaluation.gather import Source
from tomogen.evaluation.marks import Marks
from tomogen.evaluation.pair import Reading
from tomogen.evaluation.pairs import Found, More, Sides, metrics_of, score_sides
from tomogen.evaluation.subjects import MADE, RECONSTRUCTED
from tomogen.formats import DEFAULT
from tomogen.generation import codes, xrays
from tomogen.generation.load import Loaded
from tomogen.generation.translate import translated, translates
from tomogen.progress import Progress, silent
from tomogen.volume import Volume

REPROJECTION = Definition(
    metric="reprojection",
    better="lower",
    reduction="||a - b|| / ||b|| of normalised grey, mean over views, scans, patients",
    preprocessing="radiographs of the scan in the run's own room against those it was made of",
)


def against_truth(
    loaded: Loaded, cases: CaseFolder, split: str, *, conventions: str = "standard", progress: Progress = silent
) -> Found:
    """Scores of what a run makes of the cases of a split, each against itself, with floors beside.

    Floors are the truth blurred and the mean of the training cases; for a translation also the scan that it starts
    from. A reconstruction is also asked how well it explains the radiographs it was made of.

    Raises:
        RecipeMismatch: a run that starts from nothing of the kind.
        DataInvalid: cases that do not fit the run.
        UsageFault: there is no such convention.
    """
    modules = metrics_of(conventions)
    marks = Marks(None, None, DEFAULT)
    more: More | None = None
    if xrays.reconstructs(loaded):
        sides, more = _reconstructions(loaded, cases, split)
    elif translates(loaded):
        sides = _translations(loaded, cases, split)
    else:
        raise RecipeMismatch(
            f"a run that starts from {', '.join(loaded.synthesizer.conditions)} has no truth to be held to",
            at=loaded.run.path,
            fix="look at its previews; tomogen reconstruct --style uses it",
        )
    return score_sides(sides, marks, modules, more=more, progress=progress)


def reconstructed(
    loaded: Loaded, cases: CaseFolder, split: str, *, conventions: str = "standard", progress: Progress = silent
) -> Found:
    """Scores of the cases of a split as an autoencoder's means of their codes have them; floors as `against_truth`.

    Raises:
        UsageFault: there is no such convention.
    """

    def made(case: Case) -> Volume:
        return codes.decoded(loaded, codes.coded(loaded, codes.Shown(cases.volume(case), resampled=False)))

    held = cases.of(split)
    sides = Sides(
        truths=[_source(case, functools.partial(cases.volume, case)) for case in held],
        mades=[_source(case, functools.partial(made, case)) for case in held],
        inputs=[None] * len(held),
    )
    found = score_sides(sides, Marks(None, None, DEFAULT), metrics_of(conventions), progress=progress)
    subjects = {RECONSTRUCTED if name == MADE else name: scores for name, scores in found.subjects.items()}
    return found._replace(subjects=subjects)


def _reconstructions(loaded: Loaded, cases: CaseFolder, split: str) -> tuple[Sides, More]:
    """Cases reconstructed from their own radiographs."""
    loaded.synthesizer.feed(cases, loaded.run.recipe.data, split)  # raises: cases that are no food for this model
    if not np.allclose(cases.spacing, loaded.run.spacing, rtol=1e-3):
        have, want = (" x ".join(f"{mm:.4g}" for mm in spacing) for spacing in (cases.spacing, loaded.run.spacing))
        raise DataInvalid(
            f"the cases have voxels of {have} mm, the run learnt from {want}",
            reason=Reason.BAD_GEOMETRY,
            at=cases.path,
            fix=f"tomogen prepare with --spacing {','.join(f'{mm:g}' for mm in loaded.run.spacing)}",
        )

    @functools.lru_cache(maxsize=1)
    def given(name: str) -> xrays.Pictures:
        return xrays.shot(loaded, _middle(cases, by_name[name], loaded).hu)

    def made(name: str) -> Volume:
        truth = _middle(cases, by_name[name], loaded)
        return replace(truth, hu=xrays.scan_of(loaded, given(name)).hu)

    def explained(name: str, scan: Volume) -> Iterator[Reading]:
        yield Reading(REPROJECTION, float(np.mean(list(xrays.residuals(loaded, scan.hu, given(name)).values()))))

    by_name = {case.id: case for case in cases.of(split)}
    truths = [_source(case, functools.partial(_middle, cases, case, loaded)) for case in cases.of(split)]
    mades = [_source(case, functools.partial(made, case.id)) for case in cases.of(split)]
    training = [_source(case, functools.partial(_middle, cases, case, loaded)) for case in cases.of("train")]
    mean = MeanScan(training) if training and split != "train" else None
    return Sides(truths, mades, [None] * len(truths), mean), explained


def _translations(loaded: Loaded, cases: CaseFolder, split: str) -> Sides:
    """Targets of pairs, translated from their sources; these stand beside as what any translation is to beat."""
    loaded.synthesizer.feed(cases, loaded.run.recipe.data, split)  # raises: cases that are no pairs

    def given(case: Case) -> Volume:
        return Volume(np.array(cases.source(case)), np.array(case.affine), case.acquisition)

    def made(case: Case) -> Volume:
        return translated(loaded, given(case)).volume

    held = cases.of(split)
    return Sides(
        truths=[_source(case, functools.partial(cases.volume, case)) for case in held],
        mades=[_source(case, functools.partial(made, case)) for case in held],
        inputs=[_source(case, functools.partial(given, case)) for case in held],
    )


def _source(case: Case, read: Callable[[], Volume]) -> Source:
    return Source(case.id, case.patient, read)


def _middle(cases: CaseFolder, case: Case, loaded: Loaded) -> Volume:
    """The middle of a case, as large as what the model makes."""
    volume = cases.volume(case)
    start = (np.array(volume.shape) - loaded.synthesizer.shape) // 2
    return volume.crop(start.tolist(), list(loaded.synthesizer.shape))
