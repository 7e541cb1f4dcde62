"""Recipes: what is refused, what overrides what, and that a resolved recipe is the recipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tomogen import recipe as recipes
from tomogen.cli.__main__ import main
from tomogen.errors import InputMissing, RecipeMismatch, UsageFault
from tomogen.recipe import Optimizer, Recipe

BASE = """# A recipe to try things with.
[model]
name = "wgan"
shape = [16, 16, 16]
doublings = 2

[training]
batch = 2

[optimizer]
lr = 1e-4
[optimizer.critic]
lr = 3e-4
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.toml"
    path.write_text(BASE)
    return path


def refused(path: Path, *set: str) -> RecipeMismatch:
    with pytest.raises(RecipeMismatch) as found:
        _ = Recipe.load(path, set).config
    assert found.value.exit_code == 5
    return found.value


@pytest.mark.parametrize(
    ("line", "key", "near"),
    [
        ("btch = 3", "btch", "batch"),
        ("checkpoint_evry = 3", "checkpoint_evry", "checkpoint_every"),
        ("presision = 'bf16'", "presision", "precision"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name_and_its_line(
    base: Path, line: str, key: str, near: str
) -> None:
    base.write_text(BASE.replace("batch = 2", f"batch = 2\n{line}"))
    error = refused(base)
    assert error.what == f"`{key}`: unknown in [training]; did you mean `{near}`?"
    assert error.at == "base.toml, line 9"


def test_an_unknown_field_of_the_model_is_refused(base: Path) -> None:
    base.write_text(BASE.replace("doublings = 2", "doublngs = 2"))
    error = refused(base)
    assert "did you mean `doublings`?" in error.what
    assert error.at == "base.toml, line 5"


def test_an_unknown_section_and_an_unknown_player_are_refused(base: Path) -> None:
    assert "did you mean `training`?" in refused(base, "trainin.batch=1").what
    assert "did you mean `critic`?" in refused(base, "optimizer.crtic.lr=1e-3").what


@pytest.mark.parametrize(
    "assignment",
    [
        "training.batch=0", "training.batch=2.5", "training.batch='2'", "training.precision=fp64",
        "training.average=1.0", "optimizer.lr=-1", "optimizer.lr=nan", "optimizer.kind=sgd", "optimizer.betas=[0.5]",
        "data.shift=-1", "data.window=[400, -1000]", "model.shape=[16, 16, '16']", "model.shape=[15, 16, 16]",
        "optimizer.critic.lr=0",
        "training.steps=true", "model.name=7", "training.seed=-1",
    ],
)  # fmt: skip
def test_a_wrong_type_or_range_is_refused_and_the_override_named(base: Path, assignment: str) -> None:
    error = refused(base, assignment)
    field = assignment.partition("=")[0].rpartition(".")[2]
    assert f"`{field}`" in error.what or "`model.name`" in error.what
    assert error.at is None or error.at == f"--set {assignment}" or "model.name" in error.what


def test_a_size_that_the_model_cannot_halve_names_the_nearest_that_it_can(base: Path) -> None:
    assert refused(base, "model.shape=[60, 64, 64]", "model.doublings=4").what.endswith(
        "60 is not a multiple of 16; nearest 64"
    )


def test_an_override_without_an_equals_sign_is_a_usage_fault(base: Path) -> None:
    for wrong in ("training.batch", "batch=2", ".=1", "training.=2"):
        with pytest.raises(UsageFault):
            Recipe.load(base, [wrong])


def test_a_recipe_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(InputMissing, match="did you mean `wgan3d`"):
        Recipe.load("wgan3dd")


def test_broken_toml_is_a_mismatch_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[model\nname = 1")
    assert "line 1" in refused(tmp_path / "broken.toml").what


def test_a_flag_goes_over_the_file_and_the_file_over_what_it_extends(base: Path) -> None:
    child = base.with_name("child.toml")
    child.write_text('extends = "base.toml"\n\n[training]\nbatch = 3\nsteps = 7\n')
    read = Recipe.load(child, ["training.steps=9"])
    assert (read.training.batch, read.training.steps, read.training.keep) == (3, 9, 3)
    assert read.config.shape == (16, 16, 16)
    assert read.origins["training.batch"] == "child.toml, line 4"
    assert read.origins["training.steps"] == "--set training.steps=9"
    assert read.origins["model.shape"] == "base.toml, line 4"
    assert "training.keep" not in read.origins


def test_a_recipe_may_extend_one_that_comes_with_tomogen(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "wgan3d"\n[training]\nbatch = 1\n')
    read = Recipe.load(path)
    assert read.training.batch == 1
    assert read.model == "wgan"


def test_a_recipe_cannot_extend_itself(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('extends = "b.toml"')
    (tmp_path / "b.toml").write_text('extends = "a.toml"')
    assert "extends itself" in refused(tmp_path / "a.toml").what


def test_another_model_inherits_no_fields_of_the_old_one(base: Path) -> None:
    child = base.with_name("child.toml")
    child.write_text('extends = "base.toml"\n[model]\nname = "other"\n')
    assert Recipe.load(child).fields == {}


def test_a_player_has_what_all_have_but_for_its_own(base: Path) -> None:
    read = Recipe.load(base, ["optimizer.betas=[0.0, 0.9]"])
    assert read.optimizer_of("critic").lr == 3e-4
    assert read.optimizer_of("critic").betas == (0.0, 0.9)
    assert read.optimizer_of("generator").lr == 1e-4


@given(
    batch=st.integers(1, 64), lr=st.floats(1e-8, 1.0), average=st.none() | st.floats(0.01, 0.99),
    window=st.tuples(st.integers(-1024, 0), st.integers(1, 3000)), shape=st.lists(st.sampled_from([8, 16]), min_size=2,
    max_size=3), seed=st.integers(0, 2**53),
)  # fmt: skip
def test_a_resolved_recipe_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, batch: int, lr: float, average: float | None, window: tuple[int, int],
    shape: list[int], seed: int,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("r") / "r.toml"
    path.write_text(BASE)
    set = [f"training.batch={batch}", f"optimizer.lr={lr}", f"data.window={list(window)}", f"model.shape={shape}"]
    set += [f"training.seed={seed}"] + ([f"training.average={average}"] if average else [])
    read = Recipe.load(path, set)
    path.write_text(read.resolved())
    again = Recipe.load(path)
    assert again.values() == read.values()
    assert again.hash == read.hash
    assert read.differences(again) == []


def test_the_hash_tells_what_is_computed_and_not_how_long(base: Path) -> None:
    plain = Recipe.load(base)
    assert Recipe.load(base, ["training.steps=1", "training.keep=9", "training.preview_every=3"]).hash == plain.hash
    changed = Recipe.load(base, ["optimizer.critic.lr=1e-3", "training.seed=4"])
    assert changed.hash != plain.hash
    assert plain.differences(changed) == ["training.seed: 0 -> 4", "optimizer.critic.lr: 0.0003 -> 0.001"]


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_fits_says_what_it_is_and_its_template_is_it(name: str, tmp_path: Path) -> None:
    read = Recipe.load(name)
    assert read.values()
    assert recipes.names()[name]
    (tmp_path / "like.toml").write_text(recipes.template(name))
    assert Recipe.load(tmp_path / "like.toml").values() == read.values()


def test_listing_recipes_imports_no_torch() -> None:
    code = "import sys; from tomogen.cli.__main__ import main\ntry: main(['recipes'])\nexcept SystemExit: pass\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    )
    assert "wgan3d" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def called(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_show_prints_the_text_and_resolved_the_origins(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(capsys, "recipes", "show", str(base)) == (0, BASE, "")
    _, out, _ = called(capsys, "recipes", "show", str(base), "--resolved")
    assert "lr = 0.0001  # base.toml, line 11" in out
    assert "keep = 3  # default" in out
    _, out, _ = called(capsys, "recipes", "show", str(base), "--json")
    assert json.loads(out)["values"]["training.batch"] == {"value": 2, "origin": "base.toml, line 8"}


def test_new_writes_a_recipe_that_checks_and_never_over_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "mine.toml")
    assert called(capsys, "recipes", "new", "wgan3d", file)[0] == 0
    assert called(capsys, "recipes", "check", file)[0] == 0
    code, _, err = called(capsys, "recipes", "new", "wgan3d", file)
    assert code == 2
    assert "there is a file already" in err


def test_check_of_a_recipe_with_a_slip_ends_with_5(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "recipes", "check", str(base), "--set", "training.btch=2")
    assert (code, out) == (5, "")
    assert err.startswith("error: `btch`: unknown in [training]; did you mean `batch`?\n")


def test_the_schema_admits_what_is_known_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = called(capsys, "recipes", "schema")
    training = json.loads(out)["properties"]["training"]
    assert training["additionalProperties"] is False
    assert training["properties"]["batch"]["minimum"] == 1


def test_the_rate_falls_by_the_step_alone_and_stays_above_nothing() -> None:
    # The published schedule of X2CT added the first epoch of a resumed run twice: the rate went below zero.
    linear = Optimizer(lr=1.0, decay="linear", decay_start=50, decay_steps=50)
    assert [linear.rate(step) for step in (0, 50, 75, 99)] == pytest.approx([1, 1, 0.5, 0.02])
    assert min(linear.rate(step) for step in range(1000)) == pytest.approx(0.02)
    inverse = Optimizer(lr=1.0, decay="inverse", decay_start=10, decay_steps=10)
    assert [inverse.rate(step) for step in (0, 10, 20, 30)] == pytest.approx([1, 1, 1 / 2, 1 / 3])
    assert Optimizer(lr=1.0).rate(10**6) == 1
