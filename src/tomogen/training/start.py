"""The start of a run: all that can be checked before the first step, the folder, and where a resumed run stands."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric

from tomogen import catalog
from tomogen.batch import seed_of
from tomogen.cases.folder import CaseFolder
from tomogen.cases.labels import Labels
from tomogen.cases.preparation import ORIENTATION
from tomogen.errors import OutOfSpace, RecipeMismatch, TomogenError, UsageFault
from tomogen.progress import Progress, leads
from tomogen.recipe import Recipe
from tomogen.run import CONTENT, Run, occupied, sha256
from tomogen.training import checkpoint
from tomogen.training.allocator import keep_freed_memory
from tomogen.training.board import Board
from tomogen.training.checkpoint import Checkpoint
from tomogen.training.environment import environment, versions
from tomogen.training.result import TrainResult
from tomogen.training.session import Session
from tomogen.training.trainer import Game

Warn = Callable[[str], None]
Result = TypeVar("Result")

WHOLE = {"xrays", "label"}
"""Conditions under which a model makes whole scans, and is not meant to learn from parts of them."""

ASIDE = 16 << 20
"""Bytes for the log, previews and plots of a run, as the disk it needs is reckoned."""


@dataclass(frozen=True)
class Start:
    """What one process of a run knows before training begins."""

    plan: Recipe
    cases: CaseFolder
    out: Path
    fabric: Fabric
    asked: int | None
    """Threads that the user asked for."""
    command: str
    warn: Warn

    def __post_init__(self) -> None:
        object.__setattr__(self, "plan", classed(self.plan))

    def rehearse(self, resume: bool, overwrite: bool) -> TrainResult:
        """Check all that can be checked, and write nothing."""
        game = self._game()
        self._agreed(lambda: self._check(game, resume, overwrite))
        training = self.plan.training
        turns = sum(sum(turn.fresh for turn in game.synthesizer.turns(step)) for step in range(training.steps))
        return self._result(game, training.steps, turns * training.batch, 0.0, {}, dry_run=True)

    def play(self, resume: bool, overwrite: bool, tensorboard: bool, progress: Progress) -> TrainResult:
        """Train."""
        keeps = self.fabric.device.type == "cpu" and keep_freed_memory()
        game = self._game()
        start = self._agreed(lambda: self._begin(game, resume, overwrite, keeps))
        run = Run.open(self.out)
        session = Session(run, game, self.cases, self._facts(), f"{self.command} --resume", progress, self.warn)
        if start:
            session.resume(start)
            if self.asked is None:
                # Sums over other numbers of threads differ in their last digits.
                torch.set_num_threads(int(start.facts["threads"]))
        board = Board(run.path / "tensorboard", session.last.step) if tensorboard and leads() else None
        session.play(board)
        return self._result(game, session.last.step, session.last.images, session.seconds, session.last.losses)

    def _game(self) -> Game:
        batch, processes = self.plan.training.batch, self.fabric.world_size
        if batch % processes:
            raise UsageFault(
                f"a batch of {batch} cannot be shared out evenly to {processes} processes",
                fix=f"--set training.batch={-(-batch // processes) * processes}",
            )
        torch.manual_seed(seed_of(self.plan.training.seed, "weights"))
        return Game(self.plan.build(), self.plan, self.fabric)

    def _check(self, game: Game, resume: bool, overwrite: bool) -> bool:
        """Whether a run is resumed; raises if this recipe, these cases and that folder do not go together."""
        if resume and overwrite:
            raise UsageFault("--resume and --overwrite exclude each other")
        if self.out.resolve() == self.cases.path.resolve():
            raise UsageFault("the run and the cases are one folder", at=self.out, fix="another folder for the run")
        training = self.plan.training
        shape = game.synthesizer.shape
        self._check_window()
        feed = game.synthesizer.feed(self.cases, self.plan.data)
        feed.enough(training.batch)
        if set(game.synthesizer.conditions) <= WHOLE:
            self._say_if_cropped(shape)
        self._room(game)
        if resume and (self.out / "recipe.toml").is_file():
            self._refuse_another(Run.open(self.out), feed.beside)
            return True
        if occupied(self.out) and not overwrite and not (resume and self._unborn()):
            raise UsageFault("the output folder is not empty", at=self.out, fix="--resume or --overwrite")
        return False

    def _check_window(self) -> None:
        """Refuse cases that were clipped to less than the model is to learn."""
        held, wanted = self.cases.preparation.window, self.plan.data.window
        if held is not None and (held[0] > wanted[0] or held[1] < wanted[1]):
            low, high = (f"{value:g}" for value in held)
            raise RecipeMismatch(
                f"the cases were clipped to {low} to {high} HU as they were prepared, the recipe's window is "
                f"{wanted[0]:g} to {wanted[1]:g}",
                at=self.cases.path,
                fix=f"prepare them without --window, or --set data.window=[{low},{high}]",
            )

    def _begin(self, game: Game, resume: bool, overwrite: bool, keeps: bool) -> Checkpoint | None:
        """Make the run folder, or find where the run in it stands."""
        start = None
        if self._check(game, resume, overwrite):
            run = Run.open(self.out)
            start = checkpoint.latest(self.out / "checkpoints", self.warn)
            run.rewind(start.step if start else -1)
            if start is None and any((self.out / "checkpoints").iterdir()):
                self.warn("no checkpoint is whole; training goes on from the first step")
            run.write("recipe.toml", self.plan.resolved())
        else:
            beside = game.synthesizer.feed(self.cases, self.plan.data).beside
            labels = self.plan.data.labels
            facts = _data(self.cases, beside) | ({"labels": Labels.read(labels).classes} if labels else {})
            run = Run.create(self.out, self.plan, facts, overwrite=overwrite or resume)
        made_with = environment(
            self.fabric.device, self.fabric.world_size, self.command,
            keeps_freed_memory=keeps, recipe=self.plan.hash, data=self.cases.digest,
        )  # fmt: skip
        run.write("environment.json", json.dumps(made_with, indent=1) + "\n")
        return start

    def _unborn(self) -> bool:
        """Whether the folder holds parts of a run that was killed before it had a recipe: nothing to lose."""
        return self.out.is_dir() and all(entry.name.removesuffix(".partial") in CONTENT for entry in self.out.iterdir())

    def _refuse_another(self, run: Run, beside: str) -> None:
        changed = run.recipe.differences(self._labelled_as(run.recipe))
        if changed:
            raise RecipeMismatch(
                f"the run follows another recipe: {'; '.join(changed)}",
                at=run.path,
                fix=f"resume with the run's own recipe, {run.path / 'recipe.toml'}, or train into another folder",
            )
        if run.data["digest"] != self.cases.digest or run.data.get("beside", "") != beside:
            raise RecipeMismatch(
                "the run was trained on other cases, or on others of what lies beside them",
                at=run.path,
                fix="resume with those, or train into another folder",
            )

    def _labelled_as(self, other: Recipe) -> Recipe:
        """The plan, its CSV of labels called as another's: what the two say is compared by the feeds' digests."""
        if self.plan.data.labels is None or other.data.labels is None:
            return self.plan
        return replace(self.plan, data=replace(self.plan.data, labels=other.data.labels))

    def _say_if_cropped(self, shape: tuple[int, ...]) -> None:
        """A model of whole scans should not learn from parts of them unawares."""
        sizes = {case.shape[-len(shape) :] for case in self.cases.of("train")}
        if sizes != {shape}:
            have, takes = (" x ".join(map(str, size)) for size in (max(sizes), shape))
            self.warn(
                f"the recipe takes {takes} voxels and the cases have {have}: it will learn from random parts of them; "
                f"for whole scans, tomogen prepare with --shape and the recipe's size"
            )

    def _room(self, game: Game) -> None:
        kept = self.out / "checkpoints"
        there = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file()) if kept.is_dir() else 0
        # One more than is kept while the newest is written, and the weights for generation.
        needed = (self.plan.training.keep + 2) * game.bytes() + ASIDE - there
        free = shutil.disk_usage(checkpoint.existing(self.out)).free
        if needed > free:
            raise OutOfSpace(
                f"the disk is too small: checkpoints need {_size(needed)}, {_size(free)} are free",
                at=self.out,
                fix="--set training.keep=1, or write elsewhere",
            )

    def _facts(self) -> dict[str, Any]:
        return {
            "recipe": self.plan.hash,
            "data": self.cases.digest,
            "threads": torch.get_num_threads(),
            "processes": self.fabric.world_size,
            "versions": versions(),
        }

    def _result(
        self, game: Game, steps: int, images: int, seconds: float, losses: dict[str, float], dry_run: bool = False
    ) -> TrainResult:
        weights = None if dry_run else self.out / "weights.safetensors"
        return TrainResult(
            run=self.out,
            steps=steps,
            images=images,
            seconds=round(seconds, 3),
            losses=losses,
            weights=weights,
            sha256=sha256(weights) if weights else None,
            recipe=self.plan.hash,
            parameters=game.parameters(),
            cases=len(self.cases.of("train")),
            device=str(self.fabric.device),
            processes=self.fabric.world_size,
            threads=torch.get_num_threads(),
            checkpoint_bytes=game.bytes(),
            dry_run=dry_run,
        )

    def _agreed(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, done by the first process for all; if it raises, the others leave without a word."""
        outcome: tuple[Result | None, TomogenError | OSError | None] = (None, None)
        if self.fabric.global_rank == 0:
            try:
                outcome = work(), None
            except (TomogenError, OSError) as error:
                outcome = None, error
        result: Result
        result, failed = self.fabric.broadcast(outcome)
        if failed is not None:
            raise failed if self.fabric.global_rank == 0 else SystemExit(0)
        return result


def classed(plan: Recipe) -> Recipe:
    """A recipe with as many classes as its labels have, where it leaves that open, and their CSV by its full path.

    So the resolved recipe finds its labels from wherever it is read.

    Raises:
        RecipeMismatch: the model has no classes.
        InputMissing, DataInvalid: as `Labels.read` says.
    """
    if plan.data.labels is None:
        return plan
    origin = plan.origins.get("data.labels")
    if not hasattr(plan.config, "classes"):
        having = [name for name in catalog.names("models") if hasattr(catalog.load("models", name).Config, "classes")]
        raise RecipeMismatch(
            f"`labels`: {plan.model} has no classes; models that have: {', '.join(having)}",
            at=origin,
            fix="tomogen train stylegan2_light CASES RUN --set data.labels=FILE.csv",
        )
    path = Path(plan.data.labels).absolute()
    labels = Labels.read(path)
    plan = replace(plan, data=replace(plan.data, labels=str(path)))
    if plan.config.classes or "--set" in plan.origins.get("model.classes", ""):
        return plan  # the feed says so if they are not as many
    follows = f"classes of {path.name}"
    return replace(
        plan,
        fields={**plan.fields, "classes": len(labels.classes)},
        origins={**plan.origins, "model.classes": follows},
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _data(cases: CaseFolder, beside: str) -> dict[str, Any]:
    """`data.json`: what generation and reports need to know of the training cases."""
    training = cases.of("train")
    return {
        "spacing": list(cases.spacing),
        "orientation": ORIENTATION,
        "shape": list(training[0].shape),
        "cases": {split: len(cases.of(split)) for split in ("train", "val", "test")},
        "patients": len({case.patient for case in training}),
        "body_mask": cases.preparation.body_mask,
        "digest": cases.digest,
        "beside": beside,
    }
