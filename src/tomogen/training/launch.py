"""`train`: a recipe and prepared cases become a run."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tomogen.cases.folder import CaseFolder
from tomogen.errors import OutOfSpace, TomogenError
from tomogen.progress import Progress, leads, silent
from tomogen.recipe import Recipe
from tomogen.training.result import TrainResult


def train(
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    set: Sequence[str] = (),
    steps: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    devices: int | None = None,
    nodes: int = 1,
    strategy: str = "auto",
    precision: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    tensorboard: bool = False,
    dry_run: bool = False,
    progress: Progress = silent,
    warn: Callable[[str], None] = lambda text: None,
) -> TrainResult:
    """Train a recipe on the cases that `prepare` made, into the run folder `out`.

    `steps`, `precision` and `seed` are short for `set` of `training.steps` and so on. With `resume` the run in
    `out` goes on from its last whole checkpoint, as if it had never stopped. `training.batch` is shared out to the
    processes: more of them give the same losses sooner, to about 6 digits in fp32 and 3 in bf16. A dry run checks
    all this and writes nothing.

    Raises:
        InputMissing: no such recipe or cases.
        RecipeMismatch: the recipe does not fit itself, or not the run that is to be resumed.
        DataInvalid: the cases do not fit the recipe.
        UsageFault: `out` is not empty; the batch cannot be shared out.
        DependencyMissing: a device or a library is not there.
        TrainingDiverged, OutOfSpace, Interrupted: as they say; what was reached is saved.
    """
    flags = {"steps": steps, "precision": precision, "seed": seed}
    options = flags | {"device": device, "devices": devices, "nodes": nodes, "strategy": strategy, "threads": threads}
    command = _command(recipe, data, out, set, options | {"tensorboard": tensorboard or None})
    try:
        plan = Recipe.load(recipe, [*set, *(f"training.{key}={flags[key]}" for key in flags if flags[key] is not None)])
        cases = CaseFolder.open(data)
        # Imported once what was typed is known to be right: torch and Fabric take seconds.
        from tomogen.training.devices import fabric_of, leave, quiet, repeatable
        from tomogen.training.start import Start
        from tomogen.training.validation import require

        if plan.training.publish == "best":
            require(plan, cases)
        with quiet(), repeatable(threads):
            fabric = fabric_of(device, devices, nodes, strategy, plan.training.precision)
            fabric.launch()
            start = Start(plan, cases, Path(out), fabric, threads, command, warn)
            if dry_run:
                result = start.rehearse(resume, overwrite)
            else:
                result = start.play(resume, overwrite, tensorboard, progress)
            leave(fabric)
            return result
    except TomogenError as error:
        if leads() or isinstance(error, OutOfSpace):
            raise
        raise SystemExit(0) from None  # the first process says it for all


def _command(
    recipe: str | Path, data: str | Path, out: str | Path, set: Sequence[str], options: Mapping[str, Any]
) -> str:
    """The command line of these arguments."""
    words = ["tomogen", "train", str(recipe), str(data), str(out)]
    for assignment in set:
        words += ["--set", assignment]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and (name, value) not in (("device", "auto"), ("nodes", 1), ("strategy", "auto")):
            words += [f"--{name}", str(value)]
    return shlex.join(words)
