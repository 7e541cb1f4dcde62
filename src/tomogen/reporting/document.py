"""The page itself: sections in, one HTML file out that needs nothing else."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from tomogen.reporting.parts import Section
from tomogen.storage import whole


def publish(
    page: Path,
    sections: Sequence[Section],
    *,
    title: str,
    lead: str,
    facts: Sequence[tuple[str, str]] = (),
    cautions: Sequence[str] = (),
) -> Path:
    """Write the page, whole or not at all; a file of that name is replaced.

    `facts` stand below the lead, `cautions` in a box before everything else.
    """
    from jinja2 import Environment, StrictUndefined

    room = files("tomogen.reporting")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string(room.joinpath("page.html").read_text(encoding="utf-8"))
    text = template.render(
        title=title,
        lead=lead,
        facts=facts,
        cautions=cautions,
        sections=sections,
        style=room.joinpath("page.css").read_text(encoding="utf-8"),
    )
    with whole(page) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return page
