"""One sitting of a run: the loop's steps become log, checkpoints and previews; signals and faults become words."""

import contextlib
import errno
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import torch
from torch import Tensor

from tomogen.batch import Batch
from tomogen.cases.folder import CaseFolder
from tomogen.cases.stream import stream
from tomogen.errors import Interrupted, OutOfSpace, TomogenError, TrainingDiverged
from tomogen.progress import Progress
from tomogen.run import Run
from tomogen.training import checkpoint, looks, plots, previews, validation, watch
from tomogen.training.board import Board
from tomogen.training.checkpoint import Checkpoint
from tomogen.training.memory import out_of_memory, peak
from tomogen.training.previews import Previews
from tomogen.training.signals import Stop
from tomogen.training.trainer import Game, Step, train

LOST = ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL", "ProcessGroup")
"""Words of the errors that a process meets when another one is gone."""
FITTED = 256
"""Training images, at most, that a model may fit something to once training is over."""


class Session:
    """Plays a game from where its run stands to the recipe's last step. Every process holds one; rank 0 writes.

    What is written when depends on the number of the step alone, not on where a sitting began or ended.
    """

    def __init__(
        self,
        run: Run,
        game: Game,
        cases: CaseFolder,
        facts: Mapping[str, Any],
        again: str,
        progress: Progress,
        warn: Callable[[str], None],
    ) -> None:
        self.run = run
        self.game = game
        self.cases = cases
        self.facts = facts
        self.again = again
        self.progress = progress
        self.warn = warn
        self.training = game.recipe.training
        self.leads = game.fabric.global_rank == 0
        self.validation = validation.of(game, cases)
        self.last = Step(0, 0, {})
        self.saved: int | None = None
        self.finished = False
        self.seconds = 0.0

    def resume(self, start: Checkpoint) -> None:
        """Set everything to a checkpoint."""
        tensors = start.tensors()
        self.game.restore(tensors)
        if self.validation:
            self.validation.resume(start.facts, tensors.get("best", {}))
        self.last = Step(start.step, int(start.facts["images"]), dict(start.facts["losses"]))
        self.seconds = float(start.facts["seconds"])
        self.saved = start.step
        self.finished = bool(start.facts.get("finished"))
        if self.leads:
            self.progress(start.step, self.training.steps, f"resumed from {start.path.name}")

    def play(self, board: Board | None = None) -> None:
        """Train to the end.

        Raises:
            Interrupted: a signal came; what was reached is saved.
            TrainingDiverged: a loss or a weight is no longer a finite number.
            OutOfSpace: memory or disk ran out.
        """
        try:
            with Stop(self.warn) as stop, (self.run.path / "log.jsonl").open("ab", buffering=0) as log:
                try:
                    self._play(stop, log, board)
                except (Interrupted, TrainingDiverged):
                    self._draw()
                    raise
                self._draw()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutOfSpace(
                f"the disk is full in step {self.last.step}; {self._kept()}",
                at=self.run.path,
                fix=f"free some space, then: {self.again}",
            ) from None
        except (MemoryError, RuntimeError) as error:
            if self.game.fabric.world_size > 1 and any(word in str(error) for word in LOST):
                raise self._alone() from None
            raise out_of_memory(error, self.last.step + 1, self.game.fabric.device) or error from None

    def _play(self, stop: Stop, log: BinaryIO, board: Board | None) -> None:
        began = time.monotonic() - self.seconds
        pictures = Previews(self.game, previews.shown(self.game, self.cases))
        if self.last.step == 0:
            self._preview(pictures, log)
        share, ranks = self.training.batch // self.game.fabric.world_size, self.game.fabric.world_size
        batches = self._stream(start=self.last.images, share=share, ranks=ranks)
        if self.last.step >= self.training.steps and not self.finished:
            self._save()
        for step in train(self.game, batches, step=self.last.step, images=self.last.images):
            self.last = step
            self.seconds = time.monotonic() - began
            self._log(log)
            if board:
                board.add(step.step, step.losses)
            self._guard()
            if step.step % self.training.preview_every == 0:
                self._preview(pictures, log)
            if step.step % self.training.checkpoint_every == 0 or step.step == self.training.steps:
                self._save()
            if self.leads:
                self.progress(step.step, self.training.steps, _words(step.losses))
            if (number := self._agreed(stop.signal)) and step.step < self.training.steps:
                raise self._interrupted(number)

    def _stream(self, start: int, share: int, ranks: int) -> Iterator[Batch]:
        feed = self.game.synthesizer.feed(self.cases, self.game.recipe.data)
        rank = self.game.fabric.global_rank % ranks
        return stream(feed, batch=share, seed=self.training.seed, start=start, rank=rank, ranks=ranks)

    def _log(self, log: BinaryIO) -> None:
        if self.leads:
            losses = _numbers(self.last.losses)  # what is no number the guard speaks of
            line = {"step": self.last.step, "images": self.last.images, "seconds": round(self.seconds, 3)}
            _write(log, line | {"memory": peak(self.game.fabric.device) >> 20} | losses)

    def _preview(self, pictures: Previews, log: BinaryIO) -> None:
        """Pictures of what the model makes, what it tells, how far from the truth it is, and early words."""
        step, images = self.last.step, pictures.images()
        mae = self.validation.measure(step) if self.validation else []
        if not self.leads:
            return
        picture = self.run.path / "previews" / f"{checkpoint.name_of(step)}.png"
        previews.write(images, self.run.window, self.run.spacing, picture)
        _write(log, {"step": step, "event": "preview", "variety": pictures.variety(images)})
        if step and (told := self.game.synthesizer.told()):
            _write(log, {"step": step, "event": "told", **_numbers(told)})
        if self.validation:
            _write(log, {"step": step, "event": "validation", **self.validation.event(mae)})
        events = self.run.events()
        said = {line["event"] for line in events}
        seen = [line for line in events if line["event"] == "preview"]
        for kind, text in watch.words(self.run.log(), seen).items():
            if kind not in said:
                _write(log, {"step": step, "event": kind, "message": text})
                self.warn(f"step {step}: {text}")

    def _guard(self) -> None:
        for name, value in self.last.losses.items():
            if not math.isfinite(value):
                raise self._diverged(f"{name} is {value}")

    def _diverged(self, what: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what} in step {self.last.step}; stopped; {self._kept()}",
            at=self.run.path,
            fix="train anew with a lower optimizer.lr, with training.clip_gradient, or in fp32",
        )

    def _kept(self) -> str:
        if self.saved is None:
            return "no checkpoint was reached"
        return f"last good checkpoint: {checkpoint.name_of(self.saved)}"

    def _alone(self) -> BaseException:
        """Another process has ended, and said why: the first adds what is kept, the others leave quietly."""
        if not self.leads:
            return SystemExit(0)
        return TomogenError(
            f"another process of this run ended in step {self.last.step + 1}; {self._kept()}",
            at=self.run.path,
            fix=f"once its cause is gone: {self.again}",
        )

    def _interrupted(self, number: int) -> Interrupted:
        if self.saved != self.last.step:
            self._save()
        return Interrupted(
            f"stopped by {Stop.name_of(number)} after step {self.last.step} of {self.training.steps}; saved",
            signal=number,
            at=self.run.path,
            fix=f"go on with: {self.again}",
        )

    def _save(self) -> None:
        if not self.game.finite():
            raise self._diverged("a weight is not finite")
        state, published = self.game.state(), self._published()
        if self.validation and self.validation.best and self.validation.best.weights:
            state["best"] = dict(self.validation.best.weights)
        failed: OSError | None = None
        if self.leads:
            try:
                self._write_checkpoint(state, published)
            except OSError as error:
                failed = error
        failed = self.game.fabric.broadcast(failed)
        if failed is not None:
            raise failed if self.leads else SystemExit(0)
        self.saved = self.last.step

    def _published(self) -> dict[str, Tensor]:
        """The weights that generation gets: the last or the best, and once training is over what is fitted by them.

        What is fitted is no part of a checkpoint: a longer second sitting goes on as an unbroken run would.
        """
        best = self.validation.best if self.validation else None
        weights = dict(best.weights) if best and best.weights else self.game.weights()
        return weights if self.last.step < self.training.steps else self.game.finish(weights, self._training_images())

    def _training_images(self) -> Iterator[Tensor]:
        images = looks.of_training(self.game.synthesizer, self.game.recipe, self.cases, FITTED)
        for batch in images.batches(self.training.micro_batch or self.training.batch):
            yield batch.image

    def _write_checkpoint(self, state: Mapping[str, Mapping[str, Tensor]], published: Mapping[str, Tensor]) -> None:
        folder = self.run.path / "checkpoints"
        step, images, losses = self.last
        facts = {"step": step, "images": images, "seconds": round(self.seconds, 3), "losses": losses}
        facts |= {"finished": step >= self.training.steps} | (self.validation.facts() if self.validation else {})
        # Published first: a run that was killed between the two repeats the steps and publishes the same again.
        checkpoint.publish(published, self.run.path / "weights.safetensors")
        checkpoint.save(folder, state, facts | dict(self.facts))
        checkpoint.prune(folder, self.training.keep)

    def _draw(self) -> None:
        """The film and the plots of all so far. A full disk has been or will be told of elsewhere."""
        if not self.leads:
            return
        with contextlib.suppress(OSError):
            previews.film(self.run.path / "previews", self.run.path / "progress.gif")
            plots.losses(self.run.log(), self.run.path / "losses.png")
            plots.validation(self.run.events(), self.run.path / "validation.png")

    def _agreed(self, signal: int) -> int:
        """The signal that any process heard: all must leave after the same step."""
        fabric = self.game.fabric
        if fabric.world_size == 1:
            return signal
        heard = torch.tensor(float(signal), device=fabric.device)
        return int(fabric.all_reduce(heard, reduce_op="max"))


def _write(log: BinaryIO, line: Mapping[str, Any]) -> None:
    """Append a line of JSON; unbuffered, so that a full disk is met here and not when the file is closed."""
    text = json.dumps(line).encode() + b"\n"
    if log.write(text) < len(text):
        raise OSError(errno.ENOSPC, "the log was written in part")


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values as JSON can have them: None for what is no number."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def _words(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3g}" for name, value in losses.items())
