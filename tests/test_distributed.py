"""Several processes: the losses of one, one voice, one exit code. On the CPU, over gloo."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import tiny
from tomogen.run import Run

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "NODE_RANK", "RANK")}
ENVIRONMENT |= {"OMP_NUM_THREADS": "1"}

COMMON = ("--device", "cpu", "--set", "training.average=0.5", "--set", "optimizer.eps=1e-4", "--steps", "4")


def start(place: Path, out: str, *more: str, launcher: Sequence[str] = ()) -> "subprocess.Popen[str]":
    command = [*(launcher or [sys.executable]), "-m", "tomogen", "train", "tiny.toml", "cases", out, *COMMON, *more]
    return subprocess.Popen(
        command, cwd=place, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finished(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases, a recipe, and the run of one process."""
    place = tmp_path_factory.mktemp("several")
    tiny.trained(place, "one", set=["training.average=0.5", "optimizer.eps=1e-4"], steps=4)
    return place


def assert_as_one(place: Path, run: str) -> None:
    for mine, its in zip(Run(place / run).log(), Run(place / "one").log(), strict=True):
        assert mine["images"] == its["images"]
        losses = {name: value for name, value in its.items() if "/" in name}
        assert {name: mine[name] for name in losses} == pytest.approx(losses, rel=2e-5, abs=1e-6)
    ours, its = (load_file(place / name / "weights.safetensors") for name in (run, "one"))
    for name, tensor in its.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=2e-5)


# FSDP is for GPUs; over gloo, torch once ended a process in its own threads, in some hundred runs.
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_have_the_losses_of_one_and_one_voice(place: Path, strategy: str) -> None:
    """The gradient penalty's double backward included."""
    code, out, err = finished(start(place, strategy, "--devices", "2", "--strategy", strategy, "--json"))
    assert code == 0, err
    result = json.loads(out)
    assert result["processes"] == 2
    assert [line for line in err.splitlines() if not line.startswith("train: ")] == []
    assert_as_one(place, strategy)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_go_on_where_one_stopped(place: Path, strategy: str) -> None:
    import shutil

    run = place / f"on-{strategy}"
    shutil.copytree(place / "one", run)
    for later in ("step-000004",):
        shutil.rmtree(run / "checkpoints" / later)
    code, _, err = finished(start(place, run.name, "--devices", "2", "--strategy", strategy, "--resume"))
    assert code == 0, err
    assert_as_one(place, run.name)


@pytest.mark.slow
def test_torchrun_starts_no_more_processes_than_it_says(place: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29611"]
    code, out, err = finished(start(place, "torchrun", "--json", "-q", launcher=launcher))
    assert code == 0, err
    assert json.loads(out)["processes"] == 2
    assert_as_one(place, "torchrun")


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--set", "training.micro_batch=1"), ("--set", "training.clip_gradient=0.05")])
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_micro_batches_and_clipping_are_as_in_one_process(place: Path, strategy: str, more: tuple[str, ...]) -> None:
    one, two = f"one-{more[1]}", f"{strategy}-{more[1]}"
    if not (place / one).exists():
        assert finished(start(place, one, *more))[0] == 0
    code, _, err = finished(start(place, two, "--devices", "2", "--strategy", strategy, *more))
    assert code == 0, err
    for mine, its in zip(Run(place / two).log(), Run(place / one).log(), strict=True):
        assert {k: v for k, v in mine.items() if "/" in k} == pytest.approx(
            {k: v for k, v in its.items() if "/" in k}, rel=2e-5, abs=1e-6
        )


@pytest.mark.slow
def test_what_is_wrong_is_said_once(place: Path) -> None:
    code, out, err = finished(start(place, "one", "--devices", "2"))
    assert (code, out) == (2, "")
    assert err.splitlines() == ["error: the output folder is not empty", "  at: one", "  fix: --resume or --overwrite"]


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_says_which_can(place: Path) -> None:
    code, _, err = finished(start(place, "odd", "--devices", "2", "--set", "training.batch=3"))
    assert code == 2
    assert "a batch of 3 cannot be shared out evenly to 2 processes" in err
    assert "fix: --set training.batch=4" in err


@pytest.mark.slow
def test_a_signal_to_the_first_process_stops_all_after_the_same_step(place: Path) -> None:
    process = start(place, "stopped", "--devices", "2", "--steps", "100000")
    log = place / "stopped" / "log.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.stat().st_size > 1000):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code, _, err = finished(process)
    assert code == 143, err
    assert "--resume" in err
    assert err.count("error:") == 1


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_one_line(place: Path) -> None:
    """The second process meets a fault of its own; the first does not wait for it for ever."""
    (place / "faulty.py").write_text(
        "import os, sys\n"
        "from tomogen.training.trainer import Game\n"
        "play = Game.play\n"
        "def full(self, turn, batch, step, index):\n"
        "    if self.fabric.global_rank == 1 and step == 2:\n"
        "        raise MemoryError('as if')\n"
        "    return play(self, turn, batch, step, index)\n"
        "Game.play = full\n"
        "from tomogen.cli.__main__ import main\n"
        "main()\n"
    )
    command = [sys.executable, "faulty.py", "train", "tiny.toml", "cases", "dead", *COMMON, "--devices", "2", "-q"]
    done = subprocess.run(command, cwd=place, env=ENVIRONMENT, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "error: out of memory on cpu in step 3" in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug of ours" not in done.stderr
