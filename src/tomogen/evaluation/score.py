"""Score: a value, its 95 % interval, its definition; unlike definitions refuse to be compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tomogen.evaluation.definition import Definition


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number that can be trusted."""

    value: float
    interval: tuple[float, float] | None
    """95 %, patients resampled; None where one patient, or too few, cannot tell."""
    definition: Definition
    cases: Mapping[str, float] = field(default_factory=dict)
    """The value of each scan, where scans have one."""
    note: str = ""
    """A sentence for the reader: too few scans, an empty band."""

    def record(self) -> dict[str, Any]:
        """As plain values for JSON."""
        raise NotImplementedError

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Score":
        """From what `record` gave, perhaps through JSON."""
        raise NotImplementedError
