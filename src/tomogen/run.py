"""Run: the folder that training leaves behind, and the only thing that everything after it reads.

```
recipe.toml          the resolved recipe, each value with its origin
environment.json     versions, machine, threads, the command, hashes
data.json            the recipe's name; of the training cases: spacing in mm, orientation, counts, digest
log.jsonl            a line per step: losses; and a line per event: early words, resumes
weights.safetensors  what generation uses: the moving average where one is kept
checkpoints/         what resuming uses
previews/            pictures at fixed noise, a step each; real-and-made.png: slices of REAL cases beside made ones
losses.png, validation.png, progress.gif: curves, errors off the truth, the film of the previews
samples/             what `sample` made, unless it was told to write elsewhere
report/              index.html, what `report` and `evaluate run` write; scores.json, the scores of `evaluate run`
```
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomogen.errors import InputMissing, RecipeMismatch, UsageFault
from tomogen.formats import near
from tomogen.intensity import Window
from tomogen.recipe import Recipe
from tomogen.storage import whole

CONTENT = (
    "recipe.toml", "environment.json", "data.json", "log.jsonl", "weights.safetensors", "checkpoints", "previews",
    "samples", "tensorboard", "progress.gif", "losses.png", "validation.png", "report",
)  # fmt: skip
"""What `--overwrite` removes: the parts of a run, and nothing else that may lie beside them."""


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run at `path`.

        Raises:
            InputMissing: there is none.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputMissing(f"no such run folder{near(path)}", at=path)
        if not (path / "recipe.toml").is_file():
            raise InputMissing("no run folder: it holds no recipe.toml", at=path, fix="tomogen train RECIPE DATA OUT")
        return cls(path)

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe, data: Mapping[str, Any], *, overwrite: bool = False) -> "Run":
        """A new run folder with its recipe and the facts about its data.

        Raises:
            UsageFault: the folder holds something already.
        """
        run = cls(Path(path))
        if occupied(run.path):
            if not overwrite:
                raise UsageFault("the output folder is not empty", at=run.path, fix="--resume or --overwrite")
            run._clear()
        for folder in ("checkpoints", "previews"):
            (run.path / folder).mkdir(parents=True, exist_ok=True)
        run.write("data.json", json.dumps({"recipe": recipe.name, **data}, indent=1) + "\n")
        run.write("log.jsonl", "")
        run.write("recipe.toml", recipe.resolved())  # last: it is what makes the folder a run
        return run

    def _clear(self) -> None:
        for name in CONTENT:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe that the run follows."""
        return Recipe.load(self.path / "recipe.toml")

    @property
    def name(self) -> str:
        """Name of the recipe that the run was started with."""
        return str(self.data["recipe"])

    @property
    def window(self) -> Window:
        """HU that the model's -1..1 stands for."""
        return Window(*self.recipe.data.window)

    @functools.cached_property
    def data(self) -> dict[str, Any]:
        """`data.json`."""
        return self._json("data.json")

    @property
    def environment(self) -> dict[str, Any]:
        """`environment.json`."""
        return self._json("environment.json")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres between the voxels of the training cases along (depth, height, width)."""
        depth, height, width = self.data["spacing"]
        return float(depth), float(height), float(width)

    @property
    def weights(self) -> Path:
        """File of the weights that generation uses.

        Raises:
            InputMissing: the run has reached no checkpoint yet.
        """
        path = self.path / "weights.safetensors"
        if not path.is_file():
            raise InputMissing(
                "the run holds no weights yet: it has not reached its first checkpoint",
                at=self.path,
                fix="train it on: the command is in environment.json, with --resume",
            )
        return path

    @property
    def report(self) -> Path:
        """Folder of the page about the run, and of its scores."""
        return self.path / "report"

    @functools.cached_property
    def identifier(self) -> str:
        """16 hexadecimal digits of the weights' hash: what makes the same samples has the same identifier."""
        return sha256(self.weights)[:16]

    def log(self) -> list[dict[str, Any]]:
        """The log's lines of steps: `step`, `images`, `seconds`, `memory` in MB, and each loss as `player/term`."""
        return [line for line in self._lines() if "event" not in line]

    def events(self) -> list[dict[str, Any]]:
        """The log's other lines: `step`, `event`, `message`."""
        return [line for line in self._lines() if "event" in line]

    def rewind(self, step: int) -> None:
        """Forget the log's lines and the previews after `step`, and a last line that was only half written."""
        kept = [json.dumps(line) for line in self._lines() if line["step"] <= step]
        self.write("log.jsonl", "".join(f"{line}\n" for line in kept))
        for preview in (self.path / "previews").glob("step-*.png*"):
            if int(preview.name.removeprefix("step-").partition(".")[0]) > step:
                preview.unlink()

    def write(self, name: str, text: str) -> Path:
        """Write a text file of the run; it has its name only once it is whole."""
        path = self.path / name
        with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return path

    def _lines(self) -> Iterator[dict[str, Any]]:
        path = self.path / "log.jsonl"
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                for line in file:
                    try:
                        yield json.loads(line)
                    except json.JSONDecodeError:
                        return  # cut off when the run was killed; nothing follows it

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RecipeMismatch(f"{name} is damaged: {error}", at=self.path) from None
        return content


def occupied(path: Path) -> bool:
    """Whether something lies in a folder where a run is to begin."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
