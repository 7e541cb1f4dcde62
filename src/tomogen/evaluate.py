"""The verb `evaluate`: pairs, sets and runs are scored, and the page about them is written."""

import functools
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tomogen.appraisal import against_truth, reconstructed
from tomogen.cases.folder import CaseFolder
from tomogen.cases.labels import LABEL
from tomogen.cases.resample import resample_whole
from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault
from tomogen.evaluation.collection import VOLUME, Scan
from tomogen.evaluation.diversity import diversity
from tomogen.evaluation.evidence import SHOWN, Evidence
from tomogen.evaluation.features.network import FeatureNetwork
from tomogen.evaluation.gather import Source, called, gather, guessed
from tomogen.evaluation.heldout import Field, chosen_split, held_out, whole
from tomogen.evaluation.networks import networks_of
from tomogen.evaluation.pairs import Asked, Found, score_pairs
from tomogen.evaluation.requirement import Requirement, missed
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.sets import Comparison, compare
from tomogen.evaluation.sizes import lacking
from tomogen.evaluation.subjects import EQUAL, MADE, REAL, UNTRAINED
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.generation.codes import encodes
from tomogen.generation.load import Loaded, load, untrained
from tomogen.generation.sample import volume, volumes
from tomogen.progress import Progress, silent
from tomogen.reporting.scores_page import PAGE, SCORES, scores_page
from tomogen.run import Run, occupied
from tomogen.volume import Volume

STACKS = 8
"""Volumes that the slices of a 2D model are stacked to."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    scores: Scores
    page: Path | None
    """The report; `scores.json` lies beside it. None where none was asked for."""
    missed: tuple[str, ...] = ()
    """Requirements that are not kept."""
    too_few: str = ""
    """Why two sets have no Frechet distance, where they have none."""


def pairs(
    truth: str | Path,
    made: str | Path,
    *,
    out: str | Path | None = None,
    input: str | Path | None = None,
    train: str | Path | None = None,
    mask: str | Path | None = None,
    structure: str | Path | None = None,
    conventions: str = "all",
    resample: bool = False,
    patients: str | Path | None = None,
    require: Sequence[str] = (),
    commands: Sequence[str] = (),
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> Evaluation:
    """Score the scans under `made` against those under `truth`, voxel on voxel.

    Each path is a scan, a folder of scans or a folder that `prepare` made; two folders are matched by name. Floors
    are scored like what was made: the truth blurred, `input` (the scans before translation) and the mean of the
    scans under `train`. `mask` is `body`, or label files with the scans' names; `structure` label files of what the
    contrast-to-noise ratio is asked of. `require` holds limits such as `mae<=50`. With `out` a report is written, which
    tells the `commands` that were typed.

    Raises:
        InputMissing: a path is not there.
        DataInvalid: scans that cannot be used, lack their counterpart, or lie on another grid.
        UsageFault: an unknown convention or requirement; `out` holds something already.
    """
    required = [Requirement.parse(text) for text in require]
    folder = _free(out, overwrite)
    asked = Asked(input, train, mask, structure, conventions, resample, patients, options)
    scores, evidence = score_pairs(truth, made, asked, progress)
    return _finished(scores, evidence, folder, required, title="Scores against truth", commands=commands)


def sets(
    real: str | Path,
    made: str | Path,
    *,
    out: str | Path | None = None,
    split: str | None = None,
    resample: bool = False,
    network: str | Path | None = None,
    weights: str | Path | None = None,
    sha256: str | None = None,
    seed: int = 0,
    patients: str | Path | None = None,
    require: Sequence[str] = (),
    commands: Sequence[str] = (),
    overwrite: bool = False,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> Evaluation:
    """Score the scans under `made` against those under `real`, set against set.

    Each path is a folder of scans, or one that `prepare` made (of `real` only the cases of `split`, if given). With
    `resample` scans come to the spacing of the first real one. `network` is a module of your own that names a layer
    graph, `weights` its weights as safetensors, which must have the hash `sha256` if that is given. `seed` decides
    which patients are set apart for the floor. `require` holds limits such as `kid/volume<0.1`.

    Raises:
        InputMissing: a path is not there.
        DataInvalid: scans that cannot be used, or of unlike spacings; no scans.
        RecipeMismatch: weights of another hash, of another graph, or in a pickle.
        UsageFault: an unknown requirement; `out` holds something already.
    """
    began = time.monotonic()
    required = [Requirement.parse(text) for text in require]
    folder = _free(out, overwrite)
    networks = networks_of(network, weights, sha256)
    reals = gather(real, patients=patients, split=split, options=options)
    mades = gather(made, options=options)
    if not reals:
        raise DataInvalid(f"no cases in split {split!r}", reason=Reason.TOO_SMALL, at=real, fix="another --split")
    spacing = reals[0].read().spacing if resample else None
    if spacing is not None:
        reals, mades = ([_at(spacing, source) for source in sources] for sources in (reals, mades))
    pools: dict[str, list[Volume]] = {"real": [], "made": []}
    found = compare(
        _shown(reals, pools["real"]),
        _shown(mades, pools["made"]),
        networks=networks,
        seed=seed,
        progress=progress,
    )
    subjects = _subjects(found, diversity(reals, mades, seed=seed, progress=progress))
    if spacing is not None:
        word = f"resampled to {' x '.join(f'{mm:.4g}' for mm in spacing)} mm before"
        subjects = {name: [_preceded(score, word) for score in scores] for name, scores in subjects.items()}
    facts = {
        "real": called(real), "made": called(made),
        "scans": f"{len(reals)} real, {len(mades)} made", "seed": str(seed), **_networks(networks),
        "seconds": f"{time.monotonic() - began:.1f}",
    }  # fmt: skip
    scores = Scores(kind="sets", subjects=subjects, notes=[*guessed(reals), *found.notes], facts=facts)
    title = "Scores of one set against another"
    done = _finished(scores, _evidence(found, pools), folder, required, title=title, commands=commands)
    people = [len({source.patient for source in sources}) for sources in (reals, mades)]
    return replace(done, too_few=lacking("fid", (len(reals), len(mades)), people))


def run(
    run: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    n: int = 50,
    seed: int = 0,
    split: str | None = None,
    network: str | Path | None = None,
    weights: str | Path | None = None,
    sha256: str | None = None,
    conventions: str = "standard",
    device: str = "auto",
    require: Sequence[str] = (),
    commands: Sequence[str] = (),
    overwrite: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Make `n` samples with the model of a run and score them against the held-out cases of the prepared folder `data`.

    Beside them stand two floors: real scans against real ones, and what the same model makes before any training.
    A model of slices is also judged as volumes, its slices stacked. A model that starts from something, such as
    radiographs, makes each held-out case of its own and is scored against that, as `pairs` does, with the published
    `conventions` that are asked for; so are the reconstructions of an autoencoder, beside its samples. The report is
    written to `out`, by default the run's `report` folder.

    Raises:
        InputMissing: no run, no weights yet, or no cases.
        DataInvalid: the split has no cases, or they are smaller than what the model makes.
        RecipeMismatch: as `sets`; or weights of another model.
        UsageFault: as `sets`.
    """
    began = time.monotonic()
    required = [Requirement.parse(text) for text in require]
    loaded = load(run, device)
    folder = _free(loaded.run.report if out is None else out, overwrite)
    networks = networks_of(network, weights, sha256)
    cases = CaseFolder.open(data)
    split, caution = chosen_split(cases, split, trained_on=cases.digest == loaded.run.data["digest"])
    facts = _run_facts(loaded, cases, split)
    if set(loaded.synthesizer.conditions) - {LABEL}:
        found = against_truth(loaded, cases, split, conventions=conventions, progress=progress)
    else:
        found = _of_noise(loaded, cases, split, n, seed, networks, progress)
        facts |= {"samples": str(n), "seed": str(seed), **_networks(networks)}
    if encodes(loaded):
        held = reconstructed(loaded, cases, split, conventions=conventions, progress=progress)
        evidence = replace(found.evidence, pairs=held.evidence.pairs)
        found = Found(found.subjects | held.subjects, [*found.notes, *held.notes], evidence)
    scores = Scores(
        kind="run",
        subjects=found.subjects,
        notes=[*([caution] if caution else []), *found.notes],
        facts=facts | {"seconds": f"{time.monotonic() - began:.1f}"},
    )
    return _finished(
        scores,
        found.evidence,
        folder,
        required,
        title=f"Scores of {loaded.run.name}",
        commands=commands,
        run=loaded.run,
    )


def _of_noise(
    loaded: Loaded,
    cases: CaseFolder,
    split: str,
    n: int,
    seed: int,
    networks: Sequence[FeatureNetwork],
    progress: Progress,
) -> Found:
    """Scores of `n` samples against the cases of a split, between the floors; of slices also as stacks of them."""
    field = Field(tuple(loaded.synthesizer.shape), loaded.run.spacing, loaded.run.window)
    pools: dict[str, list[Volume]] = {"real": [], "made": []}
    reals = held_out(cases, field, split)
    mades, blanks = (_samples(one, n, seed) for one in (loaded, untrained(loaded, seed)))

    def against(made: Sequence[Source], shown: dict[str, list[Volume]], what: str) -> Comparison:
        return compare(
            _shown(reals, shown["real"]),
            _shown(made, shown["made"]),
            networks=networks,
            seed=seed,
            progress=lambda done, total, text: progress(done, total, f"{what}, {text}"),
        )

    found = against(mades, pools, "trained")
    subjects = _subjects(found, diversity(reals, mades, seed=seed, progress=progress))
    blank = against(blanks, {"real": [], "made": []}, "untrained")
    subjects[UNTRAINED] = [score for score in blank.subjects[MADE] if not score.definition.metric.endswith(EQUAL)]
    if len(field.shape) == 2:
        stacked = compare(
            map(_scan, whole(cases, field, split)),
            _stacked(loaded, cases, seed),
            networks=[network for network in networks if network.dims == 3],
            seed=seed,
            progress=lambda done, total, text: progress(done, total, f"stacked, {text}"),
        )
        for subject, more in stacked.subjects.items():
            subjects[subject] += [score for score in more if _of_volumes(score)]
        found = found._replace(profiles=stacked.profiles)
    return Found(subjects, list(found.notes), _evidence(found, pools))


def _run_facts(loaded: Loaded, cases: CaseFolder, split: str) -> dict[str, str]:
    return {
        "run": loaded.run.identifier, "recipe": loaded.run.name, "data": called(cases.path), "split": split,
    }  # fmt: skip


def _scan(source: Source) -> Scan:
    return Scan(source.name, source.patient, source.read())


def _shown(sources: Iterable[Source], kept: list[Volume]) -> Iterator[Scan]:
    """The scans one at a time, the first few of them kept for the report."""
    for scan in map(_scan, sources):
        if len(kept) < SHOWN:
            kept.append(scan.volume)
        yield scan


def _at(spacing: tuple[float, float, float], source: Source) -> Source:
    """The scan at another spacing, if it has not that one."""

    def read() -> Volume:
        volume = source.read()
        return volume if np.allclose(volume.spacing, spacing, rtol=1e-3) else resample_whole(volume, spacing)

    return replace(source, read=read)


def _samples(loaded: Loaded, n: int, seed: int) -> list[Source]:
    names = {index: f"sample-{index:06d}" for index in range(1, n + 1)}
    return [Source(name, name, functools.partial(volume, loaded, seed, index)) for index, name in names.items()]


def _stacked(loaded: Loaded, cases: CaseFolder, seed: int) -> Iterator[Scan]:
    """Slices of a 2D model, each made by itself, stacked to volumes as deep as the cases."""
    depth = min(case.shape[0] for case in cases.cases)
    made = volumes(loaded, STACKS * depth, seed)
    for index in range(1, STACKS + 1):
        first = next(made)
        hu = np.concatenate([first.hu, *(next(made).hu for _ in range(depth - 1))])
        yield Scan(f"stack-{index:06d}", f"stack-{index:06d}", replace(first, hu=hu))


def _of_volumes(score: Score) -> bool:
    """Whether a score is of volumes as such, and not of their slices or of voxels in any order."""
    return score.definition.metric.startswith("coherence") or f"/{VOLUME}" in score.definition.metric


def _subjects(found: Comparison, alike: tuple[Score, Score]) -> dict[str, list[Score]]:
    """The scores of two sets, and how alike the scans of each are."""
    subjects = {name: list(scores) for name, scores in found.subjects.items()}
    for name, score in zip((MADE, REAL), alike, strict=True):
        subjects.setdefault(name, []).append(score)
    return subjects


def _preceded(score: Score, word: str) -> Score:
    """A score whose scans were changed before it was taken."""
    before = f"{word}; {score.definition.preprocessing}"
    return replace(score, definition=replace(score.definition, preprocessing=before))


def _evidence(found: Comparison, pools: dict[str, list[Volume]]) -> Evidence:
    return Evidence(
        real=pools["real"],
        made=pools["made"],
        edges=found.edges,
        histograms=found.histograms,
        profiles=found.profiles,
    )


def _networks(networks: Sequence[FeatureNetwork]) -> dict[str, str]:
    return {f"features {network.dims}D": f"{network.name}, SHA-256 {network.sha256}" for network in networks}


def _free(out: str | Path | None, overwrite: bool) -> Path | None:
    """The folder of the report, once nothing of anybody's is in its way and it can be written.

    Raises:
        UsageFault: there is something already, or a file of that name.
        InputMissing: nothing can be written there.
    """
    if out is None:
        return None
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageFault("the report is a folder, and there is a file", at=folder, fix="another --out")
    if not overwrite and occupied(folder):
        what = "there is a report already" if (folder / PAGE).exists() else "the output folder is not empty"
        raise UsageFault(what, at=folder, fix="--overwrite, or another --out")
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputMissing("no report can be written there", at=place, fix="another --out")
    return folder


def _finished(
    scores: Scores,
    evidence: Evidence,
    folder: Path | None,
    required: Sequence[Requirement],
    *,
    title: str,
    commands: Sequence[str],
    run: Run | None = None,
) -> Evaluation:
    """Write page and scores, judge the requirements."""
    page = None
    if folder is not None:
        page = scores_page(scores, evidence, folder, title=title, commands=commands, run=run)
        try:
            scores.write(folder / SCORES)
        except BaseException:
            page.unlink()  # neither without the other
            raise
    return Evaluation(scores, page, missed(required, scores))
