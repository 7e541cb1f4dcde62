"""Checkpoints: folders `step-000040` of safetensors files and one `state.json` that holds their hashes.

A folder has its name only once it is whole and on the disk, so a kill at any moment leaves the ones before it.
Nothing is ever pickled.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tomogen.run import sha256
from tomogen.storage import whole

SCHEMA = 1
PARTIAL = ".partial"
DAMAGED = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are whole."""

    path: Path
    facts: Mapping[str, Any]
    """`step`, `images`, `seconds`, the recipe's hash, versions, threads."""

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.facts["step"])

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by file, on the CPU."""
        from safetensors.torch import load_file

        return {name.removesuffix(".safetensors"): load_file(self.path / name) for name in self.facts["files"]}


class Damaged(Exception):
    """Why a checkpoint cannot be used."""


def save(folder: Path, state: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> Checkpoint:
    """Write a checkpoint for `facts["step"]` steps.

    Raises:
        OSError: the disk is full or cannot be written; what was begun is removed, older ones are untouched.
    """
    path = folder / name_of(facts["step"])
    partial = path.with_name(path.name + PARTIAL)
    _remove(partial)
    try:
        partial.mkdir(parents=True)
        hashes = {}
        for name, tensors in state.items():
            file = partial / f"{name}.safetensors"
            _write(tensors, file)
            hashes[file.name] = sha256(file)
        record = {"schema": SCHEMA, **facts, "files": hashes}
        (partial / "state.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        flush(partial / "state.json")
        flush(partial)
        if path.exists():
            _remove(path)  # the same step, reached again after resuming from an earlier one
        partial.replace(path)
        flush(folder)
    except BaseException:
        _remove(partial)
        raise
    return Checkpoint(path, record)


def publish(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write the weights that generation uses, whole or not at all."""
    with whole(path) as partial:
        _write(weights, partial)


def read(path: Path) -> Checkpoint:
    """The checkpoint in a folder, every file compared with its hash.

    Raises:
        Damaged: something is missing, cut off or changed.
    """
    try:
        facts = json.loads((path / "state.json").read_text(encoding="utf-8"))
        if facts["schema"] != SCHEMA:
            raise Damaged(f"schema {facts['schema']}, this version reads {SCHEMA}")
        for name, expected in facts["files"].items():
            if sha256(path / name) != expected:
                raise Damaged(f"{name} does not have the hash that was written down for it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{type(error).__name__}: {error}") from None
    return Checkpoint(path, facts)


def latest(folder: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest whole checkpoint, if any; damaged ones are named and set aside, unfinished ones are removed."""
    for path in sorted(folder.glob(f"step-*{PARTIAL}")):
        _remove(path)
    for path in reversed(list_of(folder)):
        try:
            return read(path)
        except Damaged as damage:
            aside = path.with_name(path.name + DAMAGED)
            _remove(aside)
            path.rename(aside)
            warn(f"checkpoint {path.name} is damaged: {damage}; set aside as {aside.name}, the one before it is tried")
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep`."""
    for path in list_of(folder)[:-keep]:
        # Renamed first: what is half removed must not look like a checkpoint.
        doomed = path.with_name(path.name + PARTIAL)
        _remove(doomed)
        path.rename(doomed)
        _remove(doomed)


def list_of(folder: Path) -> list[Path]:
    """The checkpoint folders, oldest first."""
    found = [path for path in folder.glob("step-*") if path.suffix not in (PARTIAL, DAMAGED)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def existing(path: Path) -> Path:
    """The nearest folder at or above `path` that is there."""
    return next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.is_dir())


def name_of(step: int) -> str:
    """Folder name of a checkpoint."""
    return f"step-{step:06d}"


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open folders
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def _write(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a safetensors file to the disk; its own error for a full disk is no OSError, and becomes one."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file.touch()
    mode = file.stat().st_mode
    try:
        save_file(dict(tensors), file)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
    file.chmod(mode)  # safetensors makes its files for their owner alone
    flush(file)
