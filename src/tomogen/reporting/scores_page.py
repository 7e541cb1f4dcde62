"""Scores as a page: what was compared, every number with its definition, and pictures of what the numbers say."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tomogen._version import __version__
from tomogen.evaluation.evidence import SHOWN, Evidence
from tomogen.evaluation.scores import Row, Scores
from tomogen.evaluation.words import title as named
from tomogen.reporting import montage, plots, tables
from tomogen.reporting.document import publish
from tomogen.reporting.kept import Kept, digest
from tomogen.reporting.parts import Figure, Section
from tomogen.reporting.training import training_sections
from tomogen.reporting.words import shareable
from tomogen.run import Run

PAGE = "index.html"
SCORES = "scores.json"
"""Beside the page: the scores that it tells."""
ON_A_PAGE = 15
"""Panels of single cases in one figure: with four subjects these fill a sheet."""
IN_THE_HEAD = 40
"""Letters of a fact, at most, that stands in the head of the page; longer ones, and the time, stand at its end."""

_INTERVALS = "In brackets 95 % intervals, patients resampled; none where there are too few patients to give one."
_ENDS = "In brackets 95 % intervals, as the definition says."
_PARTS = (
    "In brackets where 95 % of random parts of the real patients put the number: the parts overlap, and the same made "
    "scans stand against all of them, so this is not an interval over patients."
)
_HEADS = {
    "pairs": "Made scans against the truth, voxel on voxel.",
    "sets": "Made scans against real ones, as two sets.",
    "run": "What a run makes, against real scans.",
}
COHERENCE = "log₂ of change through / within slices"


def scores_page(
    scores: Scores,
    evidence: Evidence,
    out: Path,
    *,
    title: str,
    commands: Sequence[str] = (),
    run: Run | None = None,
) -> Path:
    """Write `index.html` about the scores into the folder `out` and return its path; one that is there is replaced.

    `commands` are what makes the scores again; a `run` adds its training, and `figures.json` for its later pages.
    Absolute paths are cut to their last names.

    Raises:
        DataInvalid: scores of unlike definitions stand in one row; nothing is written.
    """
    drawn = drawn_sections(scores, evidence)
    sections = [*score_sections(scores, drawn), *(training_sections(run) if run is not None else ())]
    if run is not None:
        told = [shareable(command) for command in commands]
        Kept(digest(scores.to_json()), drawn, told).write(Path(out))
    facts = score_facts(scores)
    sections.append(_again([fact for fact in facts if not _brief(*fact)], commands))
    return publish(
        Path(out) / PAGE,
        sections,
        title=title,
        lead=_HEADS.get(scores.kind, "Scores."),
        facts=[*filter(lambda fact: _brief(*fact), facts), ("written", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")],
        cautions=cautions(scores),
    )


def cautions(scores: Scores) -> list[str]:
    """What the reader is to know first: the scores' own notes, and where a floor is not beaten."""
    return [*map(shareable, scores.notes), *scores.unbeaten()]


def score_sections(scores: Scores, drawn: Sequence[Section]) -> list[Section]:
    """Tables of all scores, among them what was drawn.

    Raises:
        DataInvalid: scores of unlike definitions stand in one row.
    """
    return [*_tables(scores), *drawn, *_conventions(scores)]


def drawn_sections(scores: Scores, evidence: Evidence) -> list[Section]:
    """What the evidence shows, and the scores of single cases.

    Raises:
        DataInvalid: scores of unlike definitions stand in one row.
    """
    return [*_scans(evidence), *_distributions(scores, evidence)]


def _tables(scores: Scores) -> list[Section]:
    whole, parts, equal = tables.whole_rows(scores), tables.part_rows(scores), tables.equal_rows(scores)
    found = []
    if equal:
        words = "Sets of equal size, so that what was made and its floor, real scans, can be compared. " + _PARTS
        found.append(Section("Made and real at equal n", tables=[tables.parts_table(equal, words)]))
    if single := tables.single_rows(scores):
        words = f"How the scans of each set are among themselves. {_ENDS}"
        found.append(Section("Made and real, each by itself", tables=[tables.parts_table(single, words)]))
    heading = "All scans" if equal else "Scores"
    if whole:
        found.append(Section(heading, tables=[tables.main_table(whole, f"Standard definitions. {_INTERVALS}")]))
    if parts:
        words = f"Standard definitions. {_INTERVALS}"
        found.append(Section(f"{heading} by part", tables=[tables.parts_table(parts, words)]))
    return found


def _scans(evidence: Evidence) -> list[Section]:
    figures = [montage.compared(shown) for shown in evidence.pairs[:SHOWN]]
    for what, scans, words in (
        ("real", evidence.real, "Real scans that the made ones are compared with."),
        ("made", evidence.made, "Made scans, not chosen by their looks: the first of the set."),
    ):
        if scans:
            few = scans[:SHOWN]
            names = [f"{what} {number}" for number, _ in enumerate(few, 1)]
            figures.append(montage.side_by_side(what.capitalize(), few, names, words))
    return [Section("Scans", figures=figures)] if figures else []


def _distributions(scores: Scores, evidence: Evidence) -> list[Section]:
    figures = []
    edges, counts = plots.coarser(evidence.edges, evidence.histograms)
    if histograms := plots.histograms(edges, counts):
        width = edges[1] - edges[0]
        figures.append(
            Figure.of(
                histograms,
                f"Voxels of all scans by HU, in bins of {width:g} HU, as part of all voxels counted under that name; "
                "logarithmic, so that rare tissue shows. Voxels beyond the ends count in the outermost bins.",
                "HU histograms",
            )
        )
    panels = _panels(row for row in scores.table() if row.convention == "standard")
    for first in range(0, len(panels), ON_A_PAGE):
        if boxes := plots.boxes(panels[first : first + ON_A_PAGE]):
            figures.append(
                Figure.of(
                    boxes,
                    "Each point is the score of one scan, as defined by the table's row of that name. From "
                    f"{plots.BOXED} scans on a box spans the quartiles, its line is the median, its whiskers reach "
                    "the least and the greatest. The height within a row means nothing.",
                    "Single cases" + (", continued" if first else ""),
                )
            )
    if profiles := plots.profiles(evidence.profiles, COHERENCE):
        figures.append(
            Figure.of(
                profiles,
                "Change of HU through slices over change within slices at the same distance in mm, as log₂ of the "
                "ratio of mean absolute differences: 0 where depth is like the other axes, 1 where slices are twice "
                "as unlike. Scans whose slices belong together follow the curve of real ones; slices made one by "
                "one lie above it at small distances.",
                "Inter-slice coherence",
            )
        )
    return [Section("Distributions", figures=figures)] if figures else []


def _conventions(scores: Scores) -> list[Section]:
    rows = tables.convention_rows(scores)
    if not rows:
        return []
    figures = []
    for metric, label in (("psnr", "PSNR in dB"), ("ssim", "SSIM")):
        values = [(name, score.value, score.interval) for name, score in tables.spread(scores, metric)]
        if len(values) > 1 and (picture := plots.spread(values, label, "standard")):
            lowest, highest = min(value for _, value, _ in values), max(value for _, value, _ in values)
            figures.append(
                Figure.of(
                    picture,
                    f"The same scans, {len(values)} definitions: from {lowest:.4g} to {highest:.4g}. Points are "
                    "scores, lines 95 % intervals over patients; the standard definition is the diamond on the dashed "
                    "line. Each definition stands in the table below under its name.",
                    f"{label}: the same scans under every convention",
                )
            )
    text = (
        "The same scans under published ways of computing. A number may stand beside another only where both are of "
        "one convention: what separates them here is the definition and not the scans."
    )
    table = tables.conventions_table(rows, "Scores under published conventions. Intervals as above.")
    return [Section("The same scans under published conventions", text, figures=figures, tables=[table])]


def _panels(rows: Iterable[Row]) -> list[tuple[str, Mapping[str, Sequence[float]]]]:
    """For each row whose scans have values of their own: its name, and those values by subject."""
    panels: list[tuple[str, Mapping[str, Sequence[float]]]] = []
    for row in rows:
        values = {
            name: list(score.cases.values()) for name, score in row.scores.items() if score is not None and score.cases
        }
        if values:
            unit = f" ({row.unit})" if row.unit else ""
            panels.append((f"{named(row.metric)}{unit}", values))
    return panels


def score_facts(scores: Scores) -> list[tuple[str, str]]:
    """All facts of the scores, feature networks with their whole hashes, and versions of what computed them."""
    definitions = [row.definition for row in scores.table()]
    versions = {"tomogen": __version__} | {
        name: version for definition in definitions for name, version in definition.versions.items()
    }
    networks = dict.fromkeys(definition.features for definition in definitions if definition.features)
    return [
        *((name, shareable(fact)) for name, fact in scores.facts.items()),
        *(("feature network", network) for network in networks if network not in scores.facts.values()),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def _again(facts: Sequence[tuple[str, str]], commands: Sequence[str]) -> Section:
    listings = [("", "\n".join(f"$ {shareable(command)}" for command in commands))] if commands else []
    return Section("Facts, and how to make it again" if commands else "Facts", facts=facts, listings=listings)


def _brief(name: str, fact: str) -> bool:
    return name not in ("seconds", "versions") and len(fact) <= IN_THE_HEAD
