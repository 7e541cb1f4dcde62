"""What training tells and keeps beside its losses: facts, errors off the truth, the best, and what is fitted last."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tiny
from test_distributed import finished, start
from test_report_page import Page
from test_resume import assert_same
from test_vae import TINY, built
from tomogen.batch import Batch
from tomogen.cases.folder import CaseFolder
from tomogen.errors import DataInvalid, Interrupted, RecipeMismatch
from tomogen.generation.load import load
from tomogen.intensity import Window
from tomogen.models import vae
from tomogen.models.pix2pix3d import Config as Pix2pixConfig
from tomogen.models.pix2pix3d import Model as Pix2pix
from tomogen.models.vae import Config
from tomogen.recipe import Recipe
from tomogen.reporting.page import report
from tomogen.reporting.plots import courses
from tomogen.reporting.training import training_sections
from tomogen.run import Run
from tomogen.training import checkpoint, looks, plots, previews
from tomogen.training.session import FITTED
from tomogen.training.trainer import Game

SMALL = Config(shape=(8, 8, 8), doublings=1, width=4, fine=2, latent=2, rank=2)


def place(path: Path, held: int = 2) -> Path:
    """Six tiny cases, the last of them held out, and the recipe of a tiny autoencoder."""
    catalog = tiny.cases(path / "cases") / "catalog.json"
    content = json.loads(catalog.read_text())
    for case in content["cases"][len(content["cases"]) - held :]:
        case["split"] = "val"
    catalog.write_text(json.dumps(content))
    tiny.recipe(path, TINY)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps without a break."""
    tmp_path = place(tmp_path_factory.mktemp("whole"))
    tiny.trained(tmp_path, "run")
    return tmp_path / "run"


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in Run(run).events() if event["event"] == kind]


def best_step(run: Path) -> int:
    return int(events(run, "validation")[-1]["best"])


def best_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made of images lies a HU off, and one more for every step away from that one."""

    def remake(self: Game, batch: Batch) -> Tensor:
        model = self.synthesizer
        assert isinstance(model, vae.Model)
        return batch.image + (1 + abs(int(model.warmup.made) - step)) / (Window().width / 2)

    monkeypatch.setattr(Game, "remake", remake)


# What a model tells


def test_what_a_model_tells_is_logged_at_each_preview_once_it_has_played(whole: Path) -> None:
    told = events(whole, "told")
    assert [event["step"] for event in told] == [2, 4, 6]
    for event in told:
        assert 0 <= event["active units"] <= 1
        assert event["kl"] == pytest.approx(event["kl 00"] + event["kl 01"])
    assert told[0]["kl"] != told[-1]["kl"]


def test_a_model_that_has_nothing_to_tell_is_not_logged(tmp_path: Path) -> None:
    run = tiny.trained(tmp_path, "run", steps=2).run
    assert {event["event"] for event in Run(run).events()} == {"preview"}
    assert not (run / "validation.png").exists()
    assert "best" not in checkpoint.read(run / "checkpoints" / "step-000002").facts


# How far from the truth


def test_errors_are_those_of_the_published_weights_on_held_out_scans_in_hu(whole: Path) -> None:
    seen = events(whole, "validation")
    assert [event["step"] for event in seen] == [0, 2, 4, 6]
    assert {event["split"] for event in seen} == {"val"}
    cases, window = CaseFolder.open(whole.parent / "cases"), Window()
    model = load(whole, "cpu").synthesizer
    expected = []
    for case in cases.of("val"):
        unit = torch.from_numpy(window.to_unit(np.array(cases.hu(case), dtype=np.float32)))[None, None]
        with torch.no_grad():
            made = model.remade(Batch(unit, {}, (0,)))
        assert made is not None
        expected.append(float((window.to_hu(made) - window.to_hu(unit)).abs().mean()))
    assert sorted(seen[-1]["mae"]) == pytest.approx(sorted(expected), rel=1e-5)
    means = {event["step"]: sum(event["mae"]) / 2 for event in seen}
    assert [event["best"] for event in seen] == [
        min((step for step in means if step <= last), key=lambda step: means[step]) for last in means
    ]
    assert (whole / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_where_nothing_is_held_out_training_images_are_looked_at_and_it_is_said(tmp_path: Path) -> None:
    run = tiny.trained(place(tmp_path, held=0), "run", steps=2).run
    assert [(event["split"], len(event["mae"])) for event in events(run, "validation")] == [("train", 6)] * 2


def test_images_that_are_looked_at_are_always_the_same_never_shifted_and_no_more_than_there_are(tmp_path: Path) -> None:
    recipe = Recipe.load(tiny.recipe(place(tmp_path), TINY), ["data.shift=3"])
    cases, model = CaseFolder.open(tmp_path / "cases"), built(SMALL)
    held = looks.held_out(model, recipe, cases, 8)
    assert held is not None
    assert held.count == 2
    first, again = (torch.cat([batch.image for batch in held.batches(size)]) for size in (1, 2))
    assert torch.equal(first, again)
    true = sorted(float(cases.hu(case).clip(-1000, 400).mean()) for case in cases.of("val"))
    assert sorted(Window().to_hu(first).mean((1, 2, 3, 4)).tolist()) == pytest.approx(true, rel=1e-4)
    assert looks.of_training(model, recipe, cases, 3).count == 3
    assert looks.held_out(model, recipe, tiny.folder(tmp_path / "others"), 8) is None


@pytest.mark.filterwarnings("ignore:invalid value")  # of their pictures
def test_an_error_that_is_no_number_is_none_and_never_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Game, "remake", lambda self, batch: batch.image * torch.nan)
    run = tiny.trained(place(tmp_path), "run", steps=2, set=["training.publish=best"]).run
    assert [(event["mae"], event["best"]) for event in events(run, "validation")] == [([None, None], None)] * 2
    assert not (run / "validation.png").exists()
    assert training_sections(Run(run))[0].facts == []


def test_pix2pix_is_held_to_what_it_makes_of_the_source() -> None:
    torch.manual_seed(0)
    model = Pix2pix(Pix2pixConfig(shape=(4, 32, 32), levels=3, width=4, widest=8, judge_width=4)).eval()
    source = torch.rand(2, 1, 4, 32, 32) * 2 - 1
    batch = Batch(torch.zeros_like(source), {"source": source}, (1, 2))
    assert torch.equal(model.remade(batch), model.generate(torch.empty(2, 0), {"source": source}))


# Which weights are published


def test_the_best_weights_are_published_and_training_goes_on_from_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best_at(2, monkeypatch)
    place(tmp_path)
    last = tiny.trained(tmp_path, "last").run
    best = tiny.trained(tmp_path, "best", set=["training.publish=best"]).run
    assert best_step(last) == best_step(best) == 2
    states = [checkpoint.read(run / "checkpoints" / "step-000006").tensors() for run in (last, best)]
    assert all(
        torch.equal(states[0][part][name], states[1][part][name]) for part in states[0] for name in states[0][part]
    )
    assert states[1].keys() - states[0].keys() == {"best"}
    at_best = checkpoint.read(best / "checkpoints" / "step-000002").tensors()
    published, others = (load_file(run / "weights.safetensors") for run in (best, last))
    for name, tensor in published.items():
        if not name.startswith("prior."):
            assert torch.equal(tensor, at_best["average"].get(name, at_best["model"][name])), name
    moved = "autoencoder.encoder.stages.0.0.weight"
    assert not torch.equal(published[moved], others[moved])
    assert not torch.equal(published["prior.mean"], others["prior.mean"]), "fitted by the weights it goes with"


def test_a_resumed_run_still_knows_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best_at(2, monkeypatch)
    place(tmp_path)
    tiny.trained(tmp_path, "whole", set=["training.publish=best"])
    tiny.trained(tmp_path, "run", set=["training.publish=best"], steps=3)
    tiny.trained(tmp_path, "run", set=["training.publish=best"], resume=True)
    assert best_step(tmp_path / "run") == 2
    assert_same(tmp_path / "run", tmp_path / "whole")
    facts = [checkpoint.read(tmp_path / run / "checkpoints/step-000006").facts["best"] for run in ("run", "whole")]
    assert facts[0] == facts[1]


def test_without_held_out_cases_the_best_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataInvalid, match="no cases are held out") as refused:
        tiny.trained(place(tmp_path, held=0), "run", set=["training.publish=best"])
    assert "--split 0.8 0.1 0.1" in (refused.value.fix or "")
    assert not (tmp_path / "run").exists()


def test_a_model_without_a_truth_has_no_best_weights(tmp_path: Path) -> None:
    with pytest.raises(RecipeMismatch, match="wgan makes has no truth") as refused:
        tiny.trained(tmp_path, "run", set=["training.publish=best"])
    assert refused.value.fix == "--set training.publish=last"
    assert not (tmp_path / "run").exists()


def test_the_best_weights_have_room_in_what_a_checkpoint_needs(tmp_path: Path) -> None:
    place(tmp_path)
    plain, best = (
        tiny.trained(tmp_path, "dry", dry_run=True, set=[f"training.publish={which}"]).checkpoint_bytes
        for which in ("last", "best")
    )
    real = tiny.trained(tmp_path, "run", set=["training.publish=best"], steps=2).run / "checkpoints" / "step-000002"
    assert best - plain == pytest.approx((real / "best.safetensors").stat().st_size, rel=0.3)


# What is fitted once training is over


def test_samples_lie_where_the_codes_of_training_scans_lie(whole: Path) -> None:
    model, cases, window = load(whole, "cpu").synthesizer, CaseFolder.open(whole.parent / "cases"), Window()
    assert isinstance(model, vae.Model)
    hu = np.stack([cases.hu(case) for case in cases.of("train")]).astype(np.float32)
    with torch.no_grad():
        codes = model.encode(torch.from_numpy(window.to_unit(hu))[:, None])
        drawn = model.prior(torch.randn(4000, model.prior.noise, generator=torch.Generator().manual_seed(0)))
    assert int(model.prior.scans) == len(cases.of("train")) == 4
    torch.testing.assert_close(model.prior.mean, codes.mean.mean(0), atol=1e-5, rtol=1e-4)
    variance = codes.mean.var(0, correction=1) + codes.log_variance.exp().mean(0)
    torch.testing.assert_close(drawn.mean(0), codes.mean.mean(0), atol=0.02, rtol=0)
    assert float((drawn.var(0) / variance).log().abs().max()) < 0.2
    assert float(variance.mean()) < 0.5, "nowhere near the standard normal that samples came from before"


def test_a_checkpoint_is_of_training_alone(whole: Path) -> None:
    state = checkpoint.read(whole / "checkpoints" / "step-000006")
    assert state.facts["finished"]
    assert int(state.tensors()["model"]["prior.scans"]) == 0
    assert not checkpoint.read(whole / "checkpoints" / "step-000004").facts["finished"]


def test_a_longer_second_sitting_is_as_the_unbroken_run_and_fits_again(tmp_path: Path, whole: Path) -> None:
    place(tmp_path)
    tiny.trained(tmp_path, "run", steps=4)
    before = load_file(tmp_path / "run" / "weights.safetensors")
    assert int(before["prior.scans"]) == 4
    tiny.trained(tmp_path, "run", steps=6, resume=True)
    assert_same(tmp_path / "run", whole)
    assert not torch.equal(load_file(tmp_path / "run" / "weights.safetensors")["prior.mean"], before["prior.mean"])


def test_a_stopped_run_samples_the_standard_normal_until_it_is_told_that_it_is_done(tmp_path: Path) -> None:
    import os
    import signal

    def stop(done: int, total: int | None, what: str) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    place(tmp_path)
    with pytest.raises(Interrupted):
        tiny.trained(tmp_path, "run", progress=stop)
    stopped = load_file(tmp_path / "run" / "weights.safetensors")
    assert int(stopped["prior.scans"]) == 0
    tiny.trained(tmp_path, "run", steps=4, resume=True)
    done = load_file(tmp_path / "run" / "weights.safetensors")
    assert int(done["prior.scans"]) == 4
    assert all(torch.equal(done[name], stopped[name]) for name in done if not name.startswith("prior."))


def test_resuming_a_finished_run_writes_nothing(tmp_path: Path, whole: Path) -> None:
    place(tmp_path)
    shutil.copytree(whole, tmp_path / "run")
    before = (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns
    tiny.trained(tmp_path, "run", resume=True)
    assert (tmp_path / "run" / "weights.safetensors").stat().st_mtime_ns == before
    assert_same(tmp_path / "run", whole)


def test_an_autoencoder_takes_no_more_codes_than_it_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "FITTED", 7 * 2 * 4**3)
    asked: list[int] = []

    def images() -> Iterator[Tensor]:
        for number in range(FITTED):
            asked.append(number)
            yield torch.rand(3, 1, 8, 8, 8) * 2 - 1

    model = built(SMALL).eval()
    model.finish(images())
    assert len(asked) == 3
    assert int(model.prior.scans) == 7
    lonely = built(SMALL).eval()
    lonely.finish(iter([torch.zeros(1, 1, 8, 8, 8)]))
    assert not lonely.prior.fitted


# What is drawn


def test_an_autoencoders_reconstructions_stand_beside_the_originals(tmp_path: Path) -> None:
    from PIL import Image

    levels = [torch.full((3, 1, 8, 8, 8), level) for level in (-1.0, 0.0, 1.0)]
    real, remade, made = levels
    previews.write(previews.Shown(made, real, {}, remade), Window(), (1.0, 1.0, 1.0), tmp_path / "a.png")
    assert greys(tmp_path / previews.COMPARED, 3) == pytest.approx([0, 127, 255], abs=2)
    previews.write(previews.Shown(made, real, {"source": remade}), Window(), (1.0, 1.0, 1.0), tmp_path / "a.png")
    assert greys(tmp_path / previews.COMPARED, 3) == pytest.approx([127, 255, 0], abs=2), "input, made, real"
    with Image.open(tmp_path / "a.png") as alone, Image.open(tmp_path / previews.COMPARED) as sheet:
        assert sheet.width == 3 * alone.width + 16


def greys(path: Path, columns: int) -> list[float]:
    """The grey in the middle of the first plane of each column."""
    from PIL import Image

    with Image.open(path) as sheet:
        width = (sheet.width + 8) // columns
        return [float(sheet.convert("L").getpixel((width * number + 64, 60))) for number in range(columns)]  # type: ignore[arg-type]


def test_a_window_of_the_whole_scale_is_shown_where_tissue_can_be_told_apart() -> None:
    wide = Window(-1024, 3071)
    water, bone = (torch.full((1, 1, 16, 16), float(wide.to_unit(np.array(hu, np.float32)))) for hu in (0, 1000))
    spacing = (1.0, 1.0, 1.0)
    assert previews.picture(water, wide, spacing).convert("L").getpixel((64, 64)) == pytest.approx(127, abs=2)
    assert previews.picture(bone, wide, spacing).convert("L").getpixel((64, 64)) == pytest.approx(255, abs=2)


def validations(count: int, split: str = "val") -> list[dict[str, Any]]:
    """A history whose best is its third."""
    return [
        {
            "step": step,
            "event": "validation",
            "split": split,
            "mae": [abs(step - 20) + 1.0, 50.0],
            "best": min(step, 20),
        }
        for step in range(0, 10 * count, 10)
    ]


@pytest.mark.parametrize("count", [1, 5, 300])
def test_validations_make_a_plot(tmp_path: Path, count: int) -> None:
    assert plots.validation(validations(count), tmp_path / "validation.png")
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_without_a_number_there_is_no_plot(tmp_path: Path) -> None:
    nothing = [{"step": 1, "event": "validation", "split": "val", "mae": [None], "best": None}]
    assert not plots.validation(nothing, tmp_path / "validation.png")
    assert not plots.validation([{"step": 1, "event": "preview", "variety": 1.0}], tmp_path / "validation.png")


def test_tenths_of_training_hold_the_steps_between_them() -> None:
    middles, values = plots._parts([1, 10, 11, 100], [1.0, 2.0, 3.0, 4.0], 100)
    assert middles == [5, 15, 95]
    assert values == [[1.0, 2.0], [3.0], [4.0]]


def test_facts_of_channels_share_a_panel_and_two_steps_make_a_curve() -> None:
    told = [{"step": step, "event": "told", "kl": 3.0, "kl 00": 1.0, "kl 01": 2.0, "odd": None} for step in (2, 4)]
    picture = courses(told)
    assert picture is not None
    assert picture.alt == "kl, kl, each over training steps"
    assert courses(told[:1]) is None
    assert courses([]) is None


def test_the_page_of_a_run_shows_errors_facts_and_the_best(whole: Path, tmp_path: Path) -> None:
    page = Page(report(whole, tmp_path / "page"))
    best = best_step(whole)
    assert f"step {best} of 6" in page.text
    assert "HU off 2 held-out images" in page.text
    assert "history of the best mean" in page.text
    assert "What the model told" in page.text


# Several processes


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_measure_keep_and_fit_as_one(tmp_path: Path, strategy: str) -> None:
    place(tmp_path)
    options = ("--set", "training.publish=best", "--set", "optimizer.eps=1e-4")
    one, two = (
        finished(start(tmp_path, out, *options, *more))
        for out, more in (("one", ()), ("two", ("--devices", "2", "--strategy", strategy)))
    )
    assert one[0] == two[0] == 0, one[2] + two[2]
    for kind in ("told", "validation"):
        for mine, its in zip(events(tmp_path / "two", kind), events(tmp_path / "one", kind), strict=True):
            assert mine.keys() == its.keys()
            if kind == "validation":
                assert mine["mae"] == pytest.approx(its["mae"], rel=1e-4)
                assert mine["best"] == its["best"]
    ours, its_own = (load_file(tmp_path / name / "weights.safetensors") for name in ("two", "one"))
    assert int(ours["prior.scans"]) == 4
    for name in ("prior.mean", "prior.deviation", "autoencoder.encoder.stages.0.0.weight"):
        torch.testing.assert_close(ours[name], its_own[name], rtol=1e-3, atol=1e-4)
