"""Whether two radiographs can be a frontal and a lateral view of one upright patient, told by the pictures alone.

For where files do not say it. Functions take pictures `(rows, columns)` on 0..1 as `normal` makes them.

How often they err, in percent, on 24 phantoms and 7 scans with the geometry `chest`, which sees all of the scan
(A, B), and with `x2ct`, whose beam cuts its ends (C, D); and on 247 frontal and 42 lateral real radiographs (E), of
which 11 pairs are taken to be of one patient each. Where a scan, or a real picture, ends elsewhere in each view, height
profiles cannot tell patients apart::

                                                A    B    C    D    E
    frontal taken for lateral by `likely`       0   43    0    0   10
    lateral taken for frontal by `likely`       0    0    0    0    5
    a right order called `swapped`              0    0    0    0    1
    a swapped order not called so               0   10    0    0   12
    a pair of one patient refused               0    0    0    0    0
    a pair of one patient `doubtful`            0    0    0   29   27
    upside-down lateral refused               100  100   79   57   64
    upside-down lateral not even doubtful       0    0    0   29    0
    upside-down frontal, or both, refused     100  100  100  100  100
    another patient's lateral refused          60   83    1   26   16
    another patient's not even doubtful         5    7   88   48   40

Of the 247 real frontal radiographs 1 percent are called upside down though they are not.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomogen.radiography.radiograph import Kind

Picture = NDArray[np.float32]
Profile = NDArray[np.float64]

FRONTAL = 0.77
"""Symmetry from which a picture is likely a frontal one."""
SWAPPED = 0.15
"""By how much the symmetry of the lateral view exceeds that of the frontal one where they are swapped."""

SAMPLES = 96
"""Of a height profile."""

UPRIGHT = -0.2
"""Uprightness below which a frontal picture is upside down; from here to 0 that is doubtful."""
TURNED = 0.4
"""By how much likeness to a view upside down exceeds that to the view as given, where one of them is upside down."""
TURNED_WHOLE = 0.1
"""The same where both pictures show the scan from end to end."""
SAME_WHOLE = 0.9
"""Likeness below which two such pictures are of different patients."""
SURE_WHOLE, SURE = 0.97, 0.45
"""Likeness below which it is doubtful that two pictures are of one patient: of such pictures, and of others."""

OVERTURNED = "the frontal view is upside down, or its bone is black: it is brighter at the top than at the bottom"
"""What is said of a frontal picture below `UPRIGHT`."""

_BLACK = 0.01
_BODY = 0.08
"""Grey above which there is a body."""
_LUNGS = (0.25, 0.65)
"""Part of a body's height in which a frontal picture shows two lungs."""
_REACH = 0.38
"""Half of the width that is compared, of the body's."""
_PERIODS = (0.4, 0.44, 0.48, 0.54)
"""Distances of the two lungs' middles, of the body's width."""
_AXES = np.arange(0.38, 0.621, 0.02)
"""Places of the spine, of the body's width."""
_INNER = (0.12, 0.88)
"""Columns of a body without its arms and sides."""
_END = 0.15
"""Part of a body's height that is its upper, and its lower, end."""
_SHIFTS = np.linspace(-0.04, 0.04, 9)
_SCALES = np.linspace(0.95, 1.05, 5)
"""By which one profile may lie off and be longer: magnification differs with depth, and pictures are cut unalike."""
_TRIM = 0.06
"""Of both ends of a profile, where beams cut slantwise."""


Verdict = Literal["agree", "doubtful", "upside down", "other patient"]


@dataclass(frozen=True)
class Agreement:
    """What two views are to one another. `upside down` and `other patient` are to be refused, `doubtful` is to warn."""

    verdict: Verdict
    says: str
    """The verdict as a message begins; empty where they agree."""
    likeness: float
    """Of the two height profiles, -1 to 1."""
    turned: float
    """The same with the lateral view upside down."""
    uprightness: float
    """Of the frontal view; below 0 it is likely upside down."""
    view: Kind | None = None
    """The view that the verdict blames; None where it is either."""


def agree(frontal: Picture, lateral: Picture, *, computed: bool = False) -> Agreement:
    """Whether a frontal and a lateral picture can be of one patient, both upright.

    Equal heights in the patient lie at equal heights of both pictures; where both show a scan from end to end, profiles
    of one patient nearly coincide. Where beams or collimators cut them, patients cannot be told apart, only warned of.
    `computed` says that both were computed from a CT, so that black above and below is air beyond the scan's ends.
    """
    one, other = height_profile(frontal), height_profile(lateral)
    as_given, turned, up = likeness(one, other), likeness(one, other[::-1]), uprightness(frontal)
    whole = computed and _whole(frontal) and _whole(lateral)

    def found(verdict: Verdict, says: str = "", view: Kind | None = None) -> Agreement:
        return Agreement(verdict, says, as_given, turned, up, view)

    if up < UPRIGHT:
        return found("upside down", OVERTURNED, "frontal")
    if turned - as_given > (TURNED_WHOLE if whole else TURNED):
        # The frontal one is not, as far as it tells.
        says = "the lateral view is upside down: its heights fit those of the frontal one when it is turned"
        return found("upside down", says, "lateral" if up > 0 else None)
    if whole and as_given < SAME_WHOLE:
        return found("other patient", "the views are of different patients: their heights do not fit", "lateral")
    if up < 0 or turned > as_given:
        return found("doubtful", "a view may be upside down", "frontal" if up < 0 else "lateral")
    if as_given < (SURE_WHOLE if whole else SURE):
        return found("doubtful", "the views may be of different patients: their heights hardly fit")
    return found("agree")


def symmetry(frontal: Picture) -> float:
    """How much a picture looks as the two lungs beside a spine do, -1 to 1; a lateral one does less.

    The best correlation of the columns' means, at the height of the lungs, with a cosine: bright in the middle, dark
    on both sides, bright again; over places of the spine and distances of the lungs.
    """
    body = _body(frontal)
    rows = slice(*(int(part * body.shape[0]) for part in _LUNGS))
    place = (np.arange(SAMPLES) + 0.5) / SAMPLES
    across = _sampled(body[rows].mean(axis=0), place)
    best = -1.0
    for axis in _AXES:
        near = np.abs(place - axis) <= _REACH
        for period in _PERIODS:
            best = max(best, _correlation(across[near], np.cos(2 * np.pi * (place[near] - axis) / period)))
    return best


def likely(picture: Picture) -> Kind:
    """The kind of view that a picture is likely of."""
    return "frontal" if symmetry(picture) >= FRONTAL else "lateral"


def swapped(frontal: Picture, lateral: Picture) -> bool:
    """Whether two views were likely given in the wrong order."""
    return symmetry(lateral) > symmetry(frontal) + SWAPPED


def uprightness(frontal: Picture) -> float:
    """By how much a frontal picture is brighter at the belly than at the neck, in deviations of its rows.

    Below 0 it is likely upside down. Says nothing of lateral pictures, whose shoulders are as bright.
    """
    body = _body(frontal)
    columns = slice(*(int(part * body.shape[1]) for part in _INNER))
    down = _sampled(body[:, columns].mean(axis=1), (np.arange(SAMPLES) + 0.5) / SAMPLES)
    end = int(_END * SAMPLES)
    return float((down[-end:].mean() - down[:end].mean()) / max(float(down.std()), 1e-6))


def height_profile(picture: Picture) -> Profile:
    """Means over columns from the first to the last row with a patient, resampled to `SAMPLES`."""
    means = picture.mean(axis=1, dtype=np.float64)
    there = np.flatnonzero(means > 0.1 * np.percentile(means, 95))
    inside = means[there[0] : there[-1] + 1] if len(there) > 1 else means
    return _sampled(inside, (np.arange(SAMPLES) + 0.5) / SAMPLES)


def likeness(one: Profile, other: Profile) -> float:
    """The best correlation of two height profiles over small shifts and scales, -1 to 1."""
    place = (np.arange(SAMPLES) + 0.5) / SAMPLES
    within = (place > _TRIM) & (place < 1 - _TRIM)
    best = -1.0
    for shift in _SHIFTS:
        for scale in _SCALES:
            moved = (place - 0.5) * scale + 0.5 + shift
            both = within & (moved > _TRIM) & (moved < 1 - _TRIM)
            best = max(best, _correlation(one[both], _sampled(other, moved[both])))
    return best


def _whole(picture: Picture) -> bool:
    """Whether a picture is black above and below, so that all of a scan lies within."""
    end = max(1, picture.shape[0] // 64)
    return float(picture[:end].max()) <= _BLACK and float(picture[-end:].max()) <= _BLACK


def _body(picture: Picture) -> Picture:
    """The picture from the first to the last row, and column, of which a tenth is a body."""
    thick = picture > _BODY
    rows, columns = np.flatnonzero(thick.mean(axis=1) > 0.1), np.flatnonzero(thick.mean(axis=0) > 0.1)
    if len(rows) < 8 or len(columns) < 8:
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _sampled(values: NDArray[np.floating], place: NDArray[np.float64]) -> Profile:
    """Values of a line at places on 0..1 of its length."""
    found: Profile = np.interp(place * len(values) - 0.5, np.arange(len(values)), values)
    return found


def _correlation(one: Profile, other: Profile) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float(one @ other / np.sqrt(max(float((one @ one) * (other @ other)), 1e-12)))
