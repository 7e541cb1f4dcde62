"""What an evaluation drew of a run's scans, kept beside its scores: a later page of the run shows it again."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tomogen.errors import DataInvalid, Reason
from tomogen.reporting.parts import Section
from tomogen.storage import opened, whole

KEPT = "figures.json"
"""Beside the scores that it belongs to."""
SCHEMA = 1


@dataclass(frozen=True)
class Kept:
    """Pictures whose scans are gone, since a model makes them anew for each evaluation."""

    scores: str
    """SHA-256 of the scores' text that they stand beside."""
    sections: Sequence[Section]
    commands: Sequence[str] = ()
    """What was typed to evaluate."""
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Into the folder of the page, whole or not at all; earlier ones are replaced."""
        from pydantic import TypeAdapter

        with whole(folder / KEPT) as partial:
            partial.write_bytes(TypeAdapter(Kept).dump_json(self))

    @classmethod
    def read(cls, folder: Path, scores: str) -> "Kept | None":
        """What lies in the folder and belongs to the scores of that text; None where there is nothing of the kind.

        Raises:
            DataInvalid: damaged, or of a schema that this version does not know.
        """
        from pydantic import TypeAdapter, ValidationError

        path = folder / KEPT
        if not path.is_file():
            return None
        with opened(path) as file:
            content = file.read()
        try:
            kept = TypeAdapter(Kept).validate_json(content)
        except ValidationError as error:
            raise _damaged(f"not figures as tomogen keeps them ({error.error_count()} faults)", path) from None
        if kept.schema != SCHEMA:
            raise _damaged(f"figures of schema {kept.schema}; this version of tomogen reads {SCHEMA}", path)
        return kept if kept.scores == digest(scores) else None


def digest(scores: str) -> str:
    """SHA-256 of the text of scores."""
    return hashlib.sha256(scores.encode()).hexdigest()


def _damaged(what: str, at: Path) -> DataInvalid:
    return DataInvalid(what, reason=Reason.CORRUPT, at=at, fix="evaluate the run again, with --overwrite")
