"""What a page is made of: sections of tables, figures and listings."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

Kind = Literal["scan", "plot"]
"""`scan`: greys and colours have a meaning and stay as they are; `plot`: ink on paper, inverted on dark screens."""


@dataclass(frozen=True)
class Picture:
    """An image and what it shows, in words for those who do not see it."""

    source: str
    """As a data URI."""
    alt: str
    kind: Kind = "scan"


@dataclass(frozen=True)
class Scale:
    """A colour bar and what its ends and its middle stand for."""

    bar: Picture
    ends: tuple[str, str, str]
    what: str


@dataclass(frozen=True)
class Figure:
    """Pictures in rows and columns, with the caption that defines them."""

    caption: str
    pictures: Sequence[Sequence[Picture | None]]
    """Rows of equal length; None leaves a place empty."""
    title: str = ""
    columns: Sequence[str] = ()
    """What each column shows; none where the picture stands alone."""
    rows: Sequence[str] = ()
    """What each row shows."""
    scales: Sequence[Scale] = ()

    @classmethod
    def of(cls, picture: Picture, caption: str, title: str = "") -> "Figure":
        """One picture."""
        return cls(caption, [[picture]], title)

    @property
    def plain(self) -> bool:
        """Whether a picture stands alone, without heads."""
        return not self.columns and not self.rows


@dataclass(frozen=True)
class Cell:
    """A value as text; `detail` (an interval) stands below it, `best` says so in words and weight."""

    text: str
    detail: str = ""
    best: bool = False
    mark: str = ""
    """Of the note that belongs to it."""


@dataclass(frozen=True)
class Line:
    """A row: its head, what stands small below the head, and cells."""

    head: str
    detail: str
    cells: Sequence[Cell]
    footnotes: Sequence[str] = ()
    """Marks of those that define it."""


@dataclass(frozen=True)
class Group:
    """Rows under a head of their own, or under none."""

    lines: Sequence[Line]
    head: str = ""


@dataclass(frozen=True)
class Table:
    """Groups of rows, one column a subject; the definitions stand below."""

    caption: str
    columns: Sequence[str]
    groups: Sequence[Group]
    head: str = "score"
    """Of the column of row heads."""
    shared: str = ""
    """What all the definitions say."""
    footnotes: Sequence[tuple[str, str]] = ()
    """(mark, what some say beside it)."""
    notes: Sequence[tuple[str, str]] = ()
    """(mark, sentence)."""
    prose: bool = False
    """Whether the last column holds sentences."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    heading: str
    text: str = ""
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    facts: Sequence[tuple[str, str]] = ()
    listings: Sequence[tuple[str, str]] = ()
    """(name, text); a nameless one stands open, a named one folds."""


def png(image: "Image", alt: str, kind: Kind = "scan") -> Picture:
    """An image as a picture of the page, without loss."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Picture(embedded(buffer.getvalue(), "image/png"), alt, kind)


def embedded(content: bytes, kind: str) -> str:
    """A file of media type `kind` as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
