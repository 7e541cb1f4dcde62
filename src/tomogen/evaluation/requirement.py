"""Requirements: what `--require` asks of a score, such as `mae<=50` or `synthrad2025:psnr>30`."""

import difflib
import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tomogen.errors import UsageFault
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import MADE

_FORM = re.compile(r"(?:(?P<convention>[^:<>=]+):)?(?P<metric>[^<>=]+?)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>.+)")
_SIGNS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True)
class Requirement:
    """A limit that a score of what was made must keep."""

    text: str
    metric: str
    convention: str
    sign: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """From `METRIC<=LIMIT` or `CONVENTION:METRIC<=LIMIT`, with one of < <= > >=.

        Raises:
            UsageFault: it has another form.
        """
        found = _FORM.fullmatch(text.strip())
        try:
            if found is None:
                raise ValueError(text)
            limit = float(found["limit"])
            if math.isnan(limit):
                raise ValueError(text)
        except ValueError:
            raise UsageFault(
                f"no requirement: {text!r}", fix="--require 'mae<=50', or 'synthrad2025:psnr>30'"
            ) from None
        return cls(
            text.strip(), found["metric"].strip(), (found["convention"] or "standard").strip(), found["sign"], limit
        )

    def value(self, scores: Scores) -> float:
        """The score of what was made.

        Raises:
            UsageFault: there is none of that name; near ones are told.
        """
        known = {
            f"{one.definition.convention}:{one.definition.metric}".removeprefix("standard:"): one.value
            for one in scores.subjects[MADE]
        }
        name = f"{self.convention}:{self.metric}".removeprefix("standard:")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or [full for full in known if full.endswith(self.metric)]
            hint = f"; did you mean {' or '.join(near[:3])}?" if near else ""
            raise UsageFault(f"no score {name!r} to require anything of{hint}", fix="--json lists all")
        return known[name]

    def kept_by(self, scores: Scores) -> bool:
        """Whether the score keeps the limit; one that is no number keeps none."""
        return _SIGNS[self.sign](self.value(scores), self.limit)


def missed(required: Sequence[Requirement], scores: Scores) -> tuple[str, ...]:
    """The requirements that are not kept, each with the value that was found."""
    return tuple(f"{one.text}: it is {one.value(scores):.6g}" for one in required if not one.kept_by(scores))
