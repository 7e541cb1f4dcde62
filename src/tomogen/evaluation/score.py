"""Score: a value, its 95 % interval, its definition; unlike definitions refuse to be compared."""

import functools
import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tomogen.errors import DataInvalid, Reason
from tomogen.evaluation.definition import Definition

_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


@dataclass(frozen=True)
class Comparison:
    """Two scores of one definition, side by side."""

    difference: float
    """The first less the second; 0 where they are equal, infinite ones too."""
    disjoint: bool | None
    """Whether the intervals share no value; None where one is missing. Intervals that overlap prove no equality."""
    unit: str = ""

    def __str__(self) -> str:
        words = {True: "intervals disjoint", False: "intervals overlap", None: "no intervals to tell by"}
        unit = f" {self.unit}" if self.unit else ""
        return f"{self.difference:+.4g}{unit}, {words[self.disjoint]}"


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

    def __str__(self) -> str:
        """As `27.96 dB [27.1, 28.8]`: ends to two digits of the interval's width, the value to one more."""
        unit = f" {self.definition.unit}" if self.definition.unit else ""
        value, ends = self._digits()
        return f"{value}{unit} {ends}".rstrip()

    @property
    def figure(self) -> str:
        """As `__str__`, without the unit: for a column whose head names it."""
        return " ".join(self._digits()).rstrip()

    def _digits(self) -> tuple[str, str]:
        """The value, and the interval or nothing."""
        width = math.nan if self.interval is None else self.interval[1] - self.interval[0]
        shown = self.interval is not None and not any(math.isnan(end) for end in self.interval)
        if not math.isfinite(width) or width <= 0 or not math.isfinite(self.value) or self.interval is None:
            ends = f"[{self.interval[0]:.4g}, {self.interval[1]:.4g}]" if shown and self.interval is not None else ""
            return f"{self.value:.4g}", ends
        low, high = self.interval
        largest = max(abs(self.value), abs(low), abs(high))
        places = 1 - math.floor(math.log10(width))  # decimals that give two digits of the width
        if largest < 1e-3 or largest >= 1e7:
            digits = min(max(math.floor(math.log10(largest)) + places, 1), 12)
            return f"{self.value:.{digits + 1}e}", f"[{low:.{digits}e}, {high:.{digits}e}]"
        places = min(max(places, 0), 10)
        return f"{self.value:.{places + 1}f}", f"[{low:.{places}f}, {high:.{places}f}]"

    def compare(self, other: "Score") -> Comparison:
        """How far this score lies from another, and whether their intervals are apart.

        Raises:
            DataInvalid: the definitions are unlike; each field that differs is named.
        """
        if differences := self.definition.differences(other.definition):
            raise unlike(f"{_named(self.definition)} and {_named(other.definition)}", differences)
        disjoint = None
        if self.interval is not None and other.interval is not None:
            disjoint = self.interval[1] < other.interval[0] or other.interval[1] < self.interval[0]
        difference = 0.0 if self.value == other.value else self.value - other.value
        return Comparison(difference, disjoint, self.definition.unit)

    def record(self) -> dict[str, Any]:
        """As plain values for strict JSON: numbers, lists, text; `inf`, `-inf` and `nan` as words."""
        return {
            "value": _plain(self.value),
            "interval": _plain(self.interval),
            "definition": _plain(self.definition.record()),
            "cases": _plain(self.cases),
            "note": self.note,
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Score":
        """From what `record` gave, perhaps through JSON.

        Raises:
            DataInvalid: a field is missing, unknown, or no number where one belongs.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("definition"), Mapping):
            raise _unreadable("a score has a value, an interval and a definition")
        for kind, given in ((cls, record), (Definition, record["definition"])):
            known = [item.name for item in fields(kind)]
            if strange := [name for name in given if name not in known]:
                raise _unreadable(f"`{strange[0]}`: no field of a {kind.__name__.lower()}")
        told = dict(record) | {
            name: _numbers(record[name]) for name in ("value", "interval", "cases") if name in record
        }
        told["definition"] = dict(record["definition"])
        for name in ("range", "parameters"):
            if name in told["definition"]:
                told["definition"][name] = _numbers(told["definition"][name])
        try:
            # Through JSON: strict about types ("64" is no number), and an array fits a tuple.
            return _adapter().validate_json(json.dumps(told), strict=True)
        except ValidationError as invalid:
            first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unreadable(f"`{where}`: {first['msg'].removeprefix('Input should be ')} is expected")


def unlike(whose: str, differences: list[str]) -> DataInvalid:
    """The error that keeps scores of unlike definitions apart; it names each field that differs."""
    return DataInvalid(
        f"{whose} have unlike definitions: {'; '.join(differences)}",
        reason=Reason.MIXED,
        fix="score both in one way, or name them as different metrics",
    )


def _named(definition: Definition) -> str:
    return f"{definition.metric} ({definition.convention})"


@functools.cache
def _adapter() -> TypeAdapter[Score]:
    return TypeAdapter(Score)


def _unreadable(what: str) -> DataInvalid:
    return DataInvalid(f"not a score as tomogen writes them: {what}", reason=Reason.CORRUPT, fix="score again")


def _plain(value: Any) -> Any:
    """Numbers of Python in lists and dicts; what is not finite as a word."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    return value


def _numbers(value: Any) -> Any:
    """The words for what is not finite become numbers again."""
    if isinstance(value, Mapping):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_numbers(item) for item in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
