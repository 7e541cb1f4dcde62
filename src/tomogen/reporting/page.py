"""The verb `report`: a page about a run: what it makes beside what it learnt from, scores, curves, commands, recipe."""

import functools
from collections.abc import Sequence
from pathlib import Path

from tomogen.errors import UsageFault
from tomogen.evaluation.evidence import SHOWN, Evidence
from tomogen.evaluation.scores import Scores
from tomogen.progress import Progress, silent
from tomogen.reporting import montage
from tomogen.reporting.document import publish
from tomogen.reporting.kept import Kept
from tomogen.reporting.parts import Figure, Section
from tomogen.reporting.scores_page import PAGE, SCORES, cautions, drawn_sections, score_facts, score_sections
from tomogen.reporting.training import file_picture, training_sections
from tomogen.reporting.words import shareable
from tomogen.run import Run
from tomogen.volume import Volume


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    samples: str | Path | None = None,
    commands: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write `index.html` into `out` (by default the run's `report` folder) and return its path.

    `data` is the prepared folder, for real cases beside the made ones; `samples` a folder that `sample` wrote NIfTI
    or pictures into; `commands` what was typed to get here. Where the run has been evaluated, the scores and all that
    the evaluation drew are shown as well.

    Raises:
        UsageFault: the page is there already and `overwrite` is not given.
        InputMissing: there is no run.
        DataInvalid: the run's scores or their figures are damaged, or hold unlike definitions in one row.
    """
    opened = Run.open(run)
    folder = Path(out) if out is not None else opened.report
    page = folder / PAGE
    if page.exists() and not overwrite:
        raise UsageFault("the report is there already", at=page, fix="--overwrite, or another folder")
    found = opened.report / SCORES
    scores = Scores.read(found) if found.is_file() else None
    kept = Kept.read(opened.report, found.read_text(encoding="utf-8")) if scores is not None else None
    sections: list[Section] = []
    for done, (what, make) in enumerate(
        (
            ("facts", functools.partial(_facts, opened)),
            ("pictures", functools.partial(_made, data, samples)),
            ("scores", functools.partial(_scores, scores, kept)),
            ("training", functools.partial(training_sections, opened)),
            ("commands", functools.partial(_how, opened, commands or (kept.commands if kept is not None else ()))),
        )
    ):
        progress(done, 5, what)
        sections += make()
    axes = "slices" if len(opened.recipe.config.shape) == 2 else "volumes"
    size = " x ".join(str(n) for n in opened.recipe.config.shape)
    publish(
        page,
        sections,
        title=f"{opened.name}: synthetic CT {axes}",
        lead=f"{size} voxels, from a model trained with tomogen. Every picture is inside this file.",
        cautions=[*_outdated(opened, scores), *cautions(scores)] if scores is not None else (),
    )
    progress(5, 5, "written")
    return page


def _outdated(run: Run, scores: Scores) -> list[str]:
    """A caution where the run was trained on since it was scored."""
    scored = scores.facts.get("run", run.identifier)
    if scored == run.identifier:
        return []
    return [f"The scores are of earlier weights, {scored}; the run has {run.identifier} now. Evaluate it again."]


def _scores(scores: Scores | None, kept: Kept | None) -> list[Section]:
    if scores is None:
        return []
    drawn = kept.sections if kept is not None else drawn_sections(scores, Evidence())
    return [*score_sections(scores, drawn), Section("What was scored, and with what", facts=score_facts(scores))]


def _made(data: str | Path | None, samples: str | Path | None) -> list[Section]:
    figures = []
    if data is not None and (cases := _cases(Path(data))):
        names = [f"case {number}" for number, _ in enumerate(cases, 1)]
        figures.append(montage.side_by_side("What it learnt from", cases, names, "Prepared cases."))
    if samples is not None:
        folder = Path(samples)
        if made := _samples(folder):
            names = [f"sample {number}" for number, _ in enumerate(made, 1)]
            figures.append(montage.side_by_side("What it makes", made, names, "Samples, the first of the folder."))
        for path in sorted(folder.glob("*.gif"))[:1]:
            caption = "Fly-through of a sample, from the head end down."
            figures.append(Figure.of(file_picture(path, caption), caption))
        for path in sorted(folder.glob("grid.png")):
            figures.append(Figure.of(file_picture(path, "Samples in a grid"), "Samples."))
    return [Section("Cases and samples", figures=figures)] if figures else []


def _facts(run: Run) -> list[Section]:
    log = run.log()
    data, environment = run.data, run.environment
    cases = ", ".join(f"{count} {split}" for split, count in data["cases"].items())
    facts = [
        ("recipe", run.name),
        ("steps", str(log[-1]["step"]) if log else "0"),
        ("images seen", str(log[-1]["images"]) if log else "0"),
        ("cases", f"{cases}; {data['patients']} patients"),
        ("spacing", " x ".join(f"{mm:.2f}" for mm in run.spacing) + " mm (depth, height, width)"),
        ("window", f"{run.window.low:g} to {run.window.high:g} HU"),
        ("weights", run.identifier),
    ]
    facts += [
        (name, shareable(str(environment[name])))
        for name in ("command", "device", "processor", "threads")
        if name in environment
    ]
    facts += [("versions", ", ".join(f"{name} {version}" for name, version in environment["versions"].items()))]
    return [Section("The run", facts=facts)]


def _how(run: Run, commands: Sequence[str]) -> list[Section]:
    listings = [("", "\n".join(f"$ {shareable(command)}" for command in commands))] if commands else []
    recipe = (run.path / "recipe.toml").read_text(encoding="utf-8")
    listings.append(("the resolved recipe", shareable(recipe)))
    return [Section("How to make it again", listings=listings)]


def _cases(folder: Path) -> list[Volume]:
    from tomogen.cases.folder import CaseFolder

    opened = CaseFolder.open(folder)
    return [opened.volume(case) for case in opened.of(None)[:SHOWN]]


def _samples(folder: Path) -> list[Volume]:
    from tomogen import formats

    return [formats.read(path) for path in sorted(folder.glob("sample-*.nii.gz"))[:SHOWN]]
