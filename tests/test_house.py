"""Promises of the house as a whole: what imports bring, what the command line says, names that must agree."""

import dataclasses
import enum
import importlib
import inspect
import operator
import subprocess
import sys
from pathlib import Path

import click
import pytest

import tomogen
from tomogen.cli.__main__ import Verbs
from tomogen.cli.__main__ import tomogen as root
from tomogen.formats import ReadOptions

HEAVY = {
    "torch",
    "numpy",
    "pydicom",
    "SimpleITK",
    "nibabel",
    "scipy",
    "matplotlib",
    "rich",
    "pydantic",
    "lightning_fabric",
}
VERBS = sorted(root.list_commands(click.Context(root)))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tomogen", *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["recipes", "schema"]])
def test_a_reader_that_has_gone_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tomogen", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), said) == (141, b"")


def loaded_by(statement: str) -> set[str]:
    """Heavy packages that are in memory after a statement ran in a fresh interpreter."""
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return HEAVY & set(done.stdout.splitlines()[-1].split())


def test_import_tomogen_brings_no_heavy_package() -> None:
    assert loaded_by("import tomogen") == set()


def test_help_and_every_verbs_help_bring_no_heavy_package() -> None:
    calls = "\n".join(
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass"
        for arguments in [["--help"], *[[v, "--help"] for v in VERBS]]
    )
    assert loaded_by(f"from tomogen.cli.__main__ import main\n{calls}") == set()


@pytest.mark.parametrize("name", [name for name in tomogen.__all__ if name != "__version__"])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert inspect.getdoc(getattr(tomogen, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_like_this"):
        _ = tomogen.nothing_like_this


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_a_sentence_and_every_flag_is_explained(verb: str) -> None:
    command = root.get_command(click.Context(root), verb)
    assert command is not None
    assert command.get_short_help_str(200)
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        unexplained = [p.name for p in leaf.params if isinstance(p, click.Option) and not p.help]
        assert not unexplained, f"{verb}: {unexplained}"


def twins() -> list[str]:
    """Verbs with a Python function of their name; `verb.way` where a verb has several ways."""
    found = []
    for name in sorted(set(VERBS) & set(tomogen.__all__)):
        command = root.get_command(click.Context(root), name)
        ways = list(command.commands) if isinstance(command, click.Group) else []
        found += [f"{name}.{way}" for way in ways] or [name]
    return found


STREAMS_ONLY = {"quiet", "verbose", "json", "plain", "debug", "no_input"}
PYTHON_ONLY = {"commands", "progress", "warn", "executor", "options"}
"""What a shell cannot pass; `options` is taken from the reading flags."""


@pytest.mark.parametrize("verb", twins())
def test_flags_and_parameters_of_a_verb_agree_in_name_and_default(verb: str) -> None:
    name, _, way = verb.partition(".")
    command = importlib.import_module(f"tomogen.cli.{name}").command
    command = command.commands[way] if way else command
    context = click.Context(command)
    # A flag without a default has click's own mark for that, an Enum; as a parameter it is None.
    defaults = {p.name: p.get_default(context) for p in command.params if p.name not in STREAMS_ONLY}
    flags = {name: None if isinstance(default, enum.Enum) else default for name, default in defaults.items()}
    twin = {
        name: (() if p.default is inspect.Parameter.empty else p.default)
        for name, p in inspect.signature(operator.attrgetter(verb)(tomogen)).parameters.items()
        if name not in PYTHON_ONLY
    }
    if twin.pop("options", None) is not None:  # ReadOptions: each field is a flag of the same name
        twin |= {field.name: field.default for field in dataclasses.fields(ReadOptions)}
    assert set(flags) >= set(twin), f"parameters without a flag: {set(twin) - set(flags)}"
    options = {p.name for p in command.params if isinstance(p, click.Option)}
    differing = {
        name: (flags[name], default)
        for name, default in twin.items()
        if name in options and (flags[name] or None) != (default or None)
    }
    assert not differing, f"(flag, parameter) defaults differ: {differing}"


def test_a_mistyped_verb_names_the_nearest_one() -> None:
    done = run("trian")
    assert done.returncode == 2
    assert "no such command 'trian'; did you mean 'train'?" in done.stderr
    assert done.stdout == ""


def test_a_mistyped_option_names_the_nearest_one() -> None:
    done = run("train", "--sed", "3", "a", "b", "c")
    assert done.returncode == 2
    assert "no such option '--sed'; did you mean '--seed'?" in done.stderr


def test_a_negative_seed_is_out_of_range() -> None:
    done = run("train", "a", "b", "c", "--seed", "-1")
    assert done.returncode == 2
    assert "-1 is not in the range x>=0" in done.stderr


def test_version_is_one_line() -> None:
    assert run("--version").stdout == f"tomogen {tomogen.__version__}\n"


def test_verbs_are_listed_by_the_files_of_their_room() -> None:
    files = {path.stem for path in (Path(tomogen.__file__).parent / "cli").glob("[!_]*.py")}
    assert set(Verbs.list_commands(root, click.Context(root))) == files


def test_no_module_is_named_for_nothing() -> None:
    found = [p for p in Path(tomogen.__file__).parent.rglob("*.py") if p.stem in {"utils", "helpers", "common", "misc"}]
    assert found == []
