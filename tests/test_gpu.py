"""What holds on the CPU holds on a CUDA device: `make test-gpu`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tiny
from tomogen.errors import OutOfSpace
from tomogen.run import Run
from tomogen.training import checkpoint
from tomogen.training.memory import out_of_memory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_the_unbroken_one(tmp_path: Path, precision: str) -> None:
    whole = tiny.trained(tmp_path, "whole", device="cuda", precision=precision)
    tiny.trained(tmp_path, "parts", device="cuda", precision=precision, steps=3)
    parts = tiny.trained(tmp_path, "parts", device="cuda", precision=precision, resume=True)
    assert parts.sha256 == whole.sha256


def test_the_first_losses_are_those_of_the_processor(tmp_path: Path) -> None:
    """Noise is drawn from the images' seeds on the CPU, so both devices see the same."""
    for device in ("cpu", "cuda"):
        tiny.trained(tmp_path, device, device=device, steps=1)
    mine, its = Run(tmp_path / "cuda").log()[0], Run(tmp_path / "cpu").log()[0]
    losses = {name: value for name, value in its.items() if "/" in name}
    assert {name: mine[name] for name in losses} == pytest.approx(losses, rel=1e-2, abs=1e-3)


def test_bf16_keeps_weights_in_float32_and_stays_near_fp32(tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        tiny.trained(tmp_path, precision, device="cuda", precision=precision, steps=1)
    state = checkpoint.read(tmp_path / "bf16" / "checkpoints" / "step-000001").tensors()
    assert {tensor.dtype for part in state.values() for tensor in part.values()} == {torch.float32}
    half, full = (Run(tmp_path / precision).log()[0] for precision in ("bf16", "fp32"))
    assert half["critic/adversarial"] == pytest.approx(full["critic/adversarial"], rel=0.1, abs=0.05)


def test_the_log_tells_the_memory_of_the_device(tmp_path: Path) -> None:
    tiny.trained(tmp_path, "run", device="cuda", steps=1)
    assert Run(tmp_path / "run").log()[0]["memory"] == torch.cuda.max_memory_reserved() >> 20
    assert Run(tmp_path / "run").environment["device"] == torch.cuda.get_device_name()


def test_a_device_that_is_full_is_told_with_its_size() -> None:
    with pytest.raises(torch.OutOfMemoryError) as full:
        torch.empty(2**50, device="cuda")
    said = out_of_memory(full.value, 3, torch.device("cuda", 0))
    assert isinstance(said, OutOfSpace)
    assert "out of memory on cuda:0 in step 3" in said.what


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_one_device_under_a_strategy_has_the_losses_of_one_without(tmp_path: Path, strategy: str) -> None:
    plain = tiny.trained(tmp_path, "plain", device="cuda", steps=3)
    words = ["train", "tiny.toml", "cases", strategy, "--device", "cuda", "--devices", "1", "--strategy", strategy]
    done = subprocess.run(
        [sys.executable, "-m", "tomogen", *words, "--steps", "3"],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = Run(tmp_path / strategy).log()[-1]
    assert {name: last[name] for name in plain.losses} == pytest.approx(plain.losses, rel=1e-3, abs=1e-4)
