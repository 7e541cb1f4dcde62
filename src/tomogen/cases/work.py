"""One scan to its cases: what `prepare` hands to an executor, on this machine or another."""

import contextlib
import hashlib
import json
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from tomogen.cases import journal
from tomogen.cases.folder import VOLUMES, write_volume
from tomogen.cases.preparation import Preparation
from tomogen.cases.steps import cases_of, slices_with_body, upright
from tomogen.errors import DataInvalid, Reason, TomogenError
from tomogen.volume import Volume

if TYPE_CHECKING:
    from tomogen.cases.scan import Finding


DAMAGE = frozenset({Reason.TRUNCATED, Reason.CORRUPT, Reason.NOT_FINITE, Reason.CODEC})
"""Reasons for which a scan fails; for any other it is refused: it is whole, and no CT for us."""


class Promise(Protocol):
    """What an executor gives for a task."""

    def result(self) -> Any:
        """Wait; return what the task returned, or raise what it raised."""


class Executor(Protocol):
    """Whatever runs tasks: `concurrent.futures` pools, `dask.distributed.Client`, `submitit.AutoExecutor`."""

    def submit(self, function: Any, /, *arguments: Any) -> Promise:
        """Start `function(*arguments)`, or queue it."""


@dataclass(frozen=True)
class Task:
    """A scan to prepare, and where to."""

    key: str
    finding: "Finding"
    preparation: Preparation
    out: Path


def work(task: Task) -> journal.Record:
    """Prepare one scan: its voxels, then its record. What is wrong with the scan is in the record, not raised.

    Raises:
        OSError: the output cannot be written, which is no fault of the scan.
    """
    state = journal.state_of(task.finding)
    try:
        with quiet():
            made = _pair(task) if task.preparation.pairs else _single(task)
    except DataInvalid as error:
        # A pair was meant to be one: what is wrong with it is to be mended.
        broken = error.reason in DAMAGE or task.preparation.pairs
        status: Literal["refused", "failed"] = "failed" if broken else "refused"
        record = journal.Record(state=state, status=status, failure=_failure(error.reason, error.what, error.fix))
    except TomogenError as error:
        record = journal.Record(state=state, status="failed", failure=_failure("unreadable", error.what, error.fix))
    except MemoryError:
        failure = _failure("memory", "the memory is too small for this scan", "--workers 1")
        record = journal.Record(state=state, status="failed", failure=failure)
    except Exception as error:
        # The text of a foreign error may quote a header: only its kind is told.
        failure = _failure("unreadable", f"cannot be prepared: {type(error).__name__}")
        record = journal.Record(state=state, status="failed", failure=failure)
    else:
        place = hashlib.sha256(made.voxels.encode() + made.cases[0].affine.tobytes()).hexdigest()[:16]
        slabs: Iterable[int | None] = [None] if task.preparation.slab is None else range(len(made.cases))
        sources: Iterable[Volume | None] = made.sources or [None] * len(made.cases)
        entries = tuple(
            _keep(case, source, place, slab, task.out, made.moved)
            for case, source, slab in zip(made.cases, sources, slabs, strict=True)
        )
        record = journal.Record(
            state=state,
            status="done",
            voxels=made.voxels,
            halves=made.halves,
            cases=entries,
            warnings=(*task.finding.warnings, *made.warnings),
        )
    journal.write_record(task.out, task.key, record)
    return record


@dataclass(frozen=True)
class _Made:
    """The cases of a scan, or of a pair, and what it is known by."""

    cases: list[Volume]
    voxels: str
    sources: list[Volume] | None = None
    halves: tuple[str, ...] = ()
    moved: tuple[float, ...] | None = None
    warnings: tuple[str, ...] = ()


def _single(task: Task) -> _Made:
    volume = task.finding.read()
    return _Made(cases_of(volume, task.preparation), digest(volume))


def _pair(task: Task) -> _Made:
    from tomogen.cases.pairs.pair import Pair
    from tomogen.cases.pairs.steps import pairs_of

    if not isinstance(task.finding, Pair):
        raise TypeError("a pair is prepared, and a single scan was given")
    halves = task.finding.halves()
    both = pairs_of(halves.source, halves.target, task.preparation)
    way = halves.motion
    return _Made(
        [target for _, target in both],
        hashlib.sha256("".join(halves.digests).encode()).hexdigest(),
        [source for source, _ in both],
        halves.digests,
        None if not halves.moved else tuple(round(number, 3) for number in (*way.shift, *way.angles)),
        halves.warnings,
    )


def _failure(reason: str, detail: str, fix: str | None = None) -> dict[str, str | None]:
    return {"reason": str(reason), "detail": detail, "fix": fix}


def digest(volume: Volume) -> str:
    """sha256 of a scan's HU, the same in every format and orientation that keeps them."""
    hu = upright(volume).hu
    found = hashlib.sha256(json.dumps(hu.shape).encode())
    found.update(np.ascontiguousarray(hu).data.cast("B"))
    return found.hexdigest()


def _keep(
    case: Volume, source: Volume | None, place: str, slab: int | None, out: Path, moved: tuple[float, ...] | None
) -> dict[str, Any]:
    """Write the voxels of a case, and of its source; what the catalog says of it, but for patient and split.

    `place` is a hash of the scan's voxels and of where its first case lies: equal names have equal content.
    """
    name = place if slab is None else f"{place}-{slab:02d}"
    entry = {
        "id": name,
        "shape": list(case.shape),
        "spacing": [round(mm, 6) for mm in case.spacing],
        "affine": case.affine.tolist(),
        "acquisition": asdict(case.acquisition),
        "slab": slab,
        "sha256": write_volume(out / VOLUMES / f"{name}.npy", case.hu),
        "slices": slices_with_body(case),
    }
    if source is not None:
        entry["source"] = write_volume(out / VOLUMES / f"{name}.source.npy", source.hu)
    if moved is not None:
        entry["moved"] = list(moved)
    return entry


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep readers' warnings and logs to ourselves: they quote header values."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "nibabel", "PIL")]
    before = [one.disabled for one in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in loggers:
            one.disabled = True
        try:
            yield
        finally:
            for one, disabled in zip(loggers, before, strict=True):
                one.disabled = disabled


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a cluster sends it before it kills."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Within, SIGTERM raises `Terminated`, as Ctrl-C raises KeyboardInterrupt. Only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Here:
    """The executor of one worker: this process, each task when it is asked for."""

    def submit(self, function: Any, /, *arguments: Any) -> Promise:
        """A promise that runs `function(*arguments)` when its result is wanted."""
        return _Later(function, arguments)


@dataclass(frozen=True)
class _Later:
    function: Any
    arguments: tuple[Any, ...]

    def result(self) -> Any:
        return self.function(*self.arguments)


@contextlib.contextmanager
def local(workers: int) -> Iterator[Executor]:
    """An executor of `workers` processes of this machine, one thread each; of one worker, this process.

    On the way out tasks that have not begun are dropped, and the scans in hand finished.
    """
    if workers == 1:
        yield Here()
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """A worker's first act: one thread, deaf to Ctrl-C (the parent decides), gone when the parent is killed."""
    import multiprocessing

    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
