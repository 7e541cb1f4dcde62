"""The feed of models that learn from radiographs and scans of unlike patients: a real picture, and beside it a DRR."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tomogen.cases.feed import Sample
from tomogen.cases.folder import Case, CaseFolder
from tomogen.cases.radiographs import Entry, RadiographFolder
from tomogen.cases.scans import items_of
from tomogen.cases.xrays import shots
from tomogen.errors import DataInvalid, Reason
from tomogen.radiography.attenuation import ENERGY
from tomogen.radiography.normal import normalised, uncollimated
from tomogen.radiography.radiograph import Kind

COMPUTED: dict[Kind, str] = {"frontal": "pa", "lateral": "lateral"}
"""The view in which scans are shot, by the kind of radiograph."""
FINER = 2
"""A scan is shot onto so many times the pixels that are shown, and averaged down: its empty margin is cut first."""
WIDEST = 1.3
"""Columns over rows of a DRR, at most; the sides beyond are cut off. Of 249 frontal radiographs 19 in 20 are no wider,
arms and shoulders being collimated away; a scan that is short from head to foot reaches 1.5."""
KEPT = 2048
"""Pictures kept in memory, 64 kB each at 128 x 128."""


class Unpaired:
    """Real radiographs `(1, size, size)`, each once in every pass, and as condition `drr` as much of a random scan.

    The two are of unlike patients and of one kind: frontal with frontal, lateral with lateral; kinds take turns. Right
    laterals, which look the other way, are left out. Both are normalised in the same way, without empty borders, so
    that the frame does not tell them apart.

    `shift` moves the content of each by up to that many pixels along both axes, at random: pictures are made larger
    by twice as much, and a part of `size` is cut out (published: 256 of 286, a shift of 15).
    """

    def __init__(
        self,
        folder: CaseFolder,
        size: int,
        *,
        kinds: Sequence[Kind] = ("frontal", "lateral"),
        geometry: str = "chest",
        energy: float = ENERGY,
        split: str = "train",
        shift: int = 0,
    ) -> None:
        """Raises InputMissing without radiographs, DataInvalid for slabs and where a split lacks scans or a kind."""
        self.folder, self.size, self.shift, self.split = folder, size, shift, split
        self.kinds, self.geometry, self.energy = tuple(kinds), geometry, energy
        self.cases = [item.case for item in items_of(folder, (1, 1, 1), split)]
        if any(case.slab is not None for case in self.cases):
            raise DataInvalid(
                "the cases are slabs; a radiograph needs the whole chest",
                reason=Reason.TOO_SMALL,
                at=folder.path,
                fix="tomogen prepare SCANS CASES --shape 128 128 128, without --slab",
            )
        self.radiographs = RadiographFolder.open(folder.path)
        self.pictures = {
            kind: [entry for entry in self.radiographs.pictures(kind, split) if not entry.synthetic]
            for kind in self.kinds
        }
        if missing := [kind for kind in self.kinds if not self.pictures[kind]]:
            other = next((kind for kind in self.kinds if self.pictures[kind]), None)
            narrower = f", or --set 'model.views=[\"{other}\"]'" if other else ""
            raise DataInvalid(
                f"no real {missing[0]} radiographs in split {split!r}",
                reason=Reason.TOO_FEW,
                at=folder.path,
                fix=f"tomogen prepare SCANS CASES --radiographs FOLDER with some{narrower}",
            )
        self._real = lru_cache(maxsize=KEPT)(self._read)
        self._computed = lru_cache(maxsize=KEPT)(self._shot)

    @property
    def beside(self) -> str:
        """That of the radiographs."""
        return self.radiographs.digest

    def enough(self, needed: int) -> None:
        """Raise if one round would show the same radiograph twice."""
        fewest = min(len(self.pictures[kind]) for kind in self.kinds) * len(self.kinds)
        if fewest < needed:
            raise DataInvalid(
                f"{fewest} radiographs in split {self.split!r} for kinds that take turns, batch {needed}",
                reason=Reason.TOO_SMALL,
                at=self.folder.path,
                fix=f"--set training.batch={fewest}, or more radiographs",
            )

    def draw(self, seed: int, number: int) -> Sample:
        """Radiograph `number` of the stream of `seed`, and a DRR of the same kind."""
        turn, place = divmod(number, len(self.kinds))
        kind = self.kinds[place]
        entries = self.pictures[kind]
        lap, position = divmod(turn, len(entries))
        entry = entries[_order(len(entries), seed, lap, place)[position]]
        random = np.random.default_rng((seed, number))
        case = self.cases[random.integers(len(self.cases))]
        corners = random.integers(0, 2 * self.shift + 1, size=(2, 2))
        real, computed = self.real(entry), self.computed(case, kind)
        return Sample(self._cut(real, corners[0]), {"drr": self._cut(computed, corners[1])})

    def real(self, entry: Entry) -> NDArray[np.float32]:
        """A radiograph on 0..1, with what is to be cut off at random."""
        return self._real(entry)

    def computed(self, case: Case, kind: Kind) -> NDArray[np.float32]:
        """A DRR of a scan on 0..1, likewise."""
        return self._computed(case, kind)

    def _cut(self, picture: NDArray[np.float32], corner: NDArray[np.int64]) -> NDArray[np.float32]:
        row, column = corner
        return 2 * picture[None, row : row + self.size, column : column + self.size] - 1

    def _read(self, entry: Entry) -> NDArray[np.float32]:
        return normalised(self.radiographs.read(entry), self.size + 2 * self.shift)

    def _shot(self, case: Case, kind: Kind) -> NDArray[np.float32]:
        side = self.size + 2 * self.shift
        hu = np.array(self.folder.hu(case))
        picture = shots(
            hu, case.spacing, views=(COMPUTED[kind],), geometry=self.geometry, energy=self.energy, field="scan",
            size=FINER * side,
        )[0]  # fmt: skip
        return normalised(narrowed(uncollimated(picture)), side)


def narrowed(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """A picture without what makes it wider than `WIDEST`, the same on either side."""
    beyond = max(0, picture.shape[1] - round(WIDEST * len(picture)))
    return picture[:, beyond // 2 : picture.shape[1] - (beyond - beyond // 2)]


@lru_cache(maxsize=8)
def _order(count: int, seed: int, lap: int, place: int) -> NDArray[np.int64]:
    """The order of pass `lap` over the pictures of a kind."""
    return np.random.default_rng((2, seed, lap, place)).permutation(count)
