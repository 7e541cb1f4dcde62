"""Stopped, killed, damaged, full: whatever happens, a resumed run equals the one that was never stopped."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

import tiny
from tomogen.errors import Interrupted, OutOfSpace, RecipeMismatch, UsageFault
from tomogen.recipe import Recipe
from tomogen.run import Run, sha256
from tomogen.training import checkpoint

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps without a break."""
    tmp_path = tmp_path_factory.mktemp("whole")
    tiny.trained(tmp_path, "run")
    return tmp_path / "run"


def assert_same(run: Path, whole: Path) -> None:
    """Equal weights, losses, previews and last checkpoint, byte by byte; of the log all but the times."""
    assert sha256(run / "weights.safetensors") == sha256(whole / "weights.safetensors")
    timeless = [
        [{key: value for key, value in line.items() if key not in ("seconds", "memory")} for line in Run(path)._lines()]
        for path in (run, whole)
    ]
    assert timeless[0] == timeless[1]
    for part in ("previews", "checkpoints/step-000006"):
        names = [sorted(path.name for path in (folder / part).iterdir()) for folder in (run, whole)]
        assert names[0] == names[1]
        for name in set(names[0]) - {"state.json"}:
            assert sha256(run / part / name) == sha256(whole / part / name), name
    assert not list(run.rglob("*.partial"))


def child(work: Callable[[], Any]) -> int:
    """Do `work` in a forked process; its number."""
    number = os.fork()
    if number == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            work()
            code = 0
        finally:
            os._exit(code)
    return number


def ended(number: int) -> int:
    """Exit code of a child, negative for a signal; one that hangs fails the test."""
    for _ in range(6000):
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    pytest.fail("the child did not end within a minute")


def test_a_run_resumed_between_two_checkpoints_equals_the_unbroken_one(tmp_path: Path, whole: Path) -> None:
    tiny.trained(tmp_path, "run", steps=3)
    result = tiny.trained(tmp_path, "run", resume=True)
    assert result.steps == 6
    assert result.images == 48
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path: Path, whole: Path, number: signal.Signals, code: int
) -> None:
    before, said = signal.getsignal(number), list[str]()

    def stop(done: int, total: int | None, what: str) -> None:
        if done == 3:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as end:
        tiny.trained(tmp_path, "run", progress=stop, warn=said.append)
    assert end.value.exit_code == code
    assert end.value.what == f"stopped by {number.name} after step 3 of 6; saved"
    assert (end.value.fix or "").endswith(f"{tmp_path / 'run'} --device cpu --threads 1 --resume")
    assert said == [f"{number.name}: finishing this step, then saving; once more stops at once"]
    assert checkpoint.read(tmp_path / "run" / "checkpoints" / "step-000003").step == 3
    assert signal.getsignal(number) == before
    tiny.trained(tmp_path, "run", resume=True)
    assert_same(tmp_path / "run", whole)


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, though a shell may have begun these tests in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_a_second_signal_stops_at_once(tmp_path: Path, whole: Path) -> None:
    def stop(done: int, total: int | None, what: str) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("still running")

    with pytest.raises(KeyboardInterrupt):
        tiny.trained(tmp_path, "run", progress=stop)
    tiny.trained(tmp_path, "run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_a_signal_in_the_last_step_is_no_interruption(tmp_path: Path) -> None:
    def stop(done: int, total: int | None, what: str) -> None:
        if done == total:
            os.kill(os.getpid(), signal.SIGINT)

    assert tiny.trained(tmp_path, "run", progress=stop).steps == 6


@forks
def test_a_kill_at_any_moment_of_a_save_leaves_a_run_that_goes_on(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at the n-th wait for the disk; n counts up until a run gets through."""
    tiny.trained(tmp_path, "warm", steps=1)
    flush = os.fsync
    for fatal in range(1, 100):
        out = f"run{fatal}"

        def work(left: int = fatal, out: str = out) -> None:
            def counted(descriptor: int) -> None:
                nonlocal left
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                flush(descriptor)

            monkeypatch.setattr(os, "fsync", counted)
            tiny.trained(tmp_path, out, resume=True, set=["training.checkpoint_every=3"])

        code = ended(child(work))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if fatal % 5 == 0:  # one in five is played to its end: the others only have to be whole
            tiny.trained(tmp_path, out, resume=True, set=["training.checkpoint_every=3"])
            assert_same(tmp_path / out, whole)
        for path in checkpoint.list_of(tmp_path / out / "checkpoints"):
            checkpoint.read(path)
    assert fatal > 15, "two saves of four files each, and what surrounds them, wait for the disk more often than that"


@forks
def test_kills_at_random_moments_add_up_to_the_unbroken_run(tmp_path: Path, whole: Path) -> None:
    tiny.trained(tmp_path, "warm", steps=1)
    moments = random.Random(3)
    for _ in range(40):
        number = child(lambda: tiny.trained(tmp_path, "run", resume=True))
        time.sleep(moments.uniform(0.05, 0.6))
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        if ended(number) == 0:
            break
    tiny.trained(tmp_path, "run", resume=True)
    assert_same(tmp_path / "run", whole)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizers.safetensors", "average.safetensors", "state.json"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path: Path, whole: Path, name: str, damage: Callable[[Path], None]
) -> None:
    import shutil

    tiny.cases(tmp_path / "cases")
    tiny.recipe(tmp_path)
    shutil.copytree(whole, tmp_path / "run")
    if (damage, name) == (flip, "state.json"):
        (tmp_path / "run" / "checkpoints" / "step-000006" / name).write_text('{"schema": 1, "files": {"../x": 1}}')
    else:
        damage(tmp_path / "run" / "checkpoints" / "step-000006" / name)
    said: list[str] = []
    tiny.trained(tmp_path, "run", resume=True, warn=said.append)
    assert len(said) == 1
    assert "step-000006 is damaged" in said[0]
    assert (tmp_path / "run" / "checkpoints" / "step-000006.damaged").is_dir()
    assert_same(tmp_path / "run", whole)


def test_a_run_whose_checkpoints_are_all_damaged_begins_again_and_says_so(tmp_path: Path, whole: Path) -> None:
    tiny.trained(tmp_path, "run")
    for path in checkpoint.list_of(tmp_path / "run" / "checkpoints"):
        flip(path / "model.safetensors")
    said: list[str] = []
    tiny.trained(tmp_path, "run", resume=True, warn=said.append)
    assert len(said) == 4
    assert "from the first step" in said[-1]
    assert_same(tmp_path / "run", whole)


def test_resuming_where_nothing_was_begun_begins(tmp_path: Path, whole: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)  # killed before its recipe was written
    tiny.trained(tmp_path, "run", resume=True)
    assert_same(tmp_path / "run", whole)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageFault):
        tiny.trained(tmp_path, "other", resume=True)


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, whole: Path) -> None:
    tiny.trained(tmp_path, "run")
    tiny.trained(tmp_path, "run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_another_recipe_is_refused_field_by_field_and_other_bookkeeping_is_not(tmp_path: Path, whole: Path) -> None:
    tiny.trained(tmp_path, "run", steps=2)
    with pytest.raises(RecipeMismatch) as refused:
        tiny.trained(tmp_path, "run", resume=True, set=["optimizer.lr=1e-4", "model.width=3"], seed=9)
    assert refused.value.exit_code == 5
    for change in ("model.width: 2 -> 3", "optimizer.lr: 0.001 -> 0.0001", "training.seed: 0 -> 9"):
        assert change in refused.value.what
    tiny.trained(tmp_path, "run", resume=True, set=["training.keep=1", "training.checkpoint_every=5"])
    assert sha256(tmp_path / "run" / "weights.safetensors") == sha256(whole / "weights.safetensors")
    assert Recipe.load(tmp_path / "run" / "recipe.toml").training.checkpoint_every == 5


def test_other_cases_are_refused(tmp_path: Path) -> None:
    tiny.trained(tmp_path, "run", steps=2)
    (tmp_path / "cases").rename(tmp_path / "old")
    tiny.cases(tmp_path / "cases", count=7)
    with pytest.raises(RecipeMismatch, match="other cases"):
        tiny.trained(tmp_path, "run", resume=True)


def test_a_resumed_run_takes_the_threads_it_had_unless_told_otherwise(tmp_path: Path) -> None:
    tiny.trained(tmp_path, "run", steps=2, threads=3)
    assert tiny.trained(tmp_path, "run", steps=3, threads=None, resume=True).threads == 3
    assert tiny.trained(tmp_path, "run", steps=4, threads=2, resume=True).threads == 2


# Disks


@pytest.mark.parametrize("step", [4, 6])
def test_a_disk_that_fills_up_during_a_save_leaves_the_last_checkpoint_and_no_partial_one(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    write = checkpoint._write

    def full(tensors: Any, file: Path) -> None:
        if f"step-{step:06d}" in str(file) and file.name.startswith("optimizers"):
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, file)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_write", full)
        with pytest.raises(OutOfSpace, match=f"in step {step}; last good checkpoint: step-{step - 2:06d}") as end:
            tiny.trained(tmp_path, "run")
    assert end.value.exit_code == 6
    assert not list((tmp_path / "run").rglob("*.partial"))
    assert checkpoint.read(checkpoint.list_of(tmp_path / "run" / "checkpoints")[-1]).step == step - 2
    tiny.trained(tmp_path, "run", resume=True)
    assert_same(tmp_path / "run", whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, where the machine lets us have one."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        sys.platform != "linux"
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=False)


def test_a_small_disk_that_is_really_full_ends_with_6_and_goes_on_once_there_is_room(
    small_disk: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tomogen.training import start

    monkeypatch.setattr(start, "ASIDE", -(1 << 30))  # let it run into the wall
    ballast = small_disk / "ballast"
    tiny.trained(tmp_path, "disk/run", steps=2)
    free = os.statvfs(small_disk)
    ballast.write_bytes(b"0" * (free.f_bavail * free.f_bsize - 24_576))
    with pytest.raises(OutOfSpace, match="the disk is full in step"):
        tiny.trained(tmp_path, "disk/run", resume=True)
    assert checkpoint.read(small_disk / "run" / "checkpoints" / "step-000002").step == 2
    assert not list(small_disk.rglob("*.partial"))
    ballast.unlink()
    tiny.trained(tmp_path, "disk/run", resume=True)
    assert sha256(small_disk / "run" / "weights.safetensors") == sha256(whole / "weights.safetensors")


def test_a_read_only_output_is_an_error_of_the_system_before_the_first_step(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tomogen.training import start

    monkeypatch.setattr(start, "ASIDE", -(1 << 30))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    def never(*now: Any) -> NoReturn:
        pytest.fail("trained")

    with pytest.raises(OSError, match="Read-only") as refused:
        tiny.trained(tmp_path, "disk/run", progress=never)
    assert refused.value.errno == errno.EROFS


def test_nothing_is_ever_pickled() -> None:
    import tomogen

    for path in Path(tomogen.__file__).parent.rglob("*.py"):
        text = path.read_text()
        if path.name == "adoption.py":  # weights of others come as pickles; of those only tensors are made
            assert text.count("torch.load(") == text.count("weights_only=True") == 1
            continue
        assert "torch.save(" not in text, path
        assert "torch.load(" not in text, path
        assert "import pickle" not in text, path
