"""The steps of `cases.steps` on a pair: the geometry comes from the source, which alone is known at inference."""

from tomogen.cases.preparation import Preparation
from tomogen.cases.resample import resample
from tomogen.cases.steps import body_box, clip, field_box, find_body, grids, only
from tomogen.volume import Volume


def pairs_of(source: Volume, target: Volume, preparation: Preparation) -> list[tuple[Volume, Volume]]:
    """The cases that a pair gives, each a source and a target; both upright, straight, and on one grid.

    The sources are what `cases.steps.cases_of` makes of the source alone.

    Raises:
        DataInvalid: the source holds no body.
    """
    body = find_body(source)
    box = body_box(body) if preparation.body_mask else field_box(source, body)
    halves = [only(half, body) if preparation.body_mask else half for half in (source, target)]
    cases = []
    for grid in grids(source, box, preparation):
        one, other = (clip(resample(half, grid.spacing, grid.shape, grid.first), preparation.window) for half in halves)
        cases.append((one, other))
    return cases
