"""The tutorial's commands, typed in order in an empty folder."""

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import tomogen

DOCS = Path(__file__).parents[1] / "docs"


def commands(page: str) -> list[list[str]]:
    """The lines after `$ ` in the console blocks of a page, as arguments."""
    blocks = re.findall(r"```console\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    typed = commands("tutorial.md")
    assert len(typed) >= 10
    for program, *arguments in typed:
        assert program == "tomogen"
        done = subprocess.run(
            [sys.executable, "-m", "tomogen", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, f"tomogen {shlex.join(arguments)}\n{done.stdout}{done.stderr}"
    for made in (
        "lungs.png",
        "phantom-0001.nii.gz",
        "made/sample-000002.nii.gz",
        "made/sample-000001",
        "run/report/index.html",
    ):
        assert (tmp_path / made).exists(), made


def test_all_that_the_python_page_documents_is_there() -> None:
    named = re.findall(r"^\.\. auto(\w+):: tomogen\.([\w.]+)$", (DOCS / "python.md").read_text(), flags=re.MULTILINE)
    assert len(named) > 10
    for kind, path in named:
        module, _, name = (path, "", "") if kind == "module" else path.rpartition(".")
        assert getattr(importlib.import_module(f"tomogen.{module}"), name or "__doc__"), path
    verbs = {path.rpartition(".")[2] for kind, path in named if kind == "function"}
    assert verbs >= {name for name in tomogen.__all__ if inspect.isfunction(getattr(tomogen, name))} - {"read", "write"}


def test_every_room_stands_on_the_page_of_the_house() -> None:
    page = (DOCS / "architecture.md").read_text()
    rooms = {path.stem for path in Path(tomogen.__file__).parent.iterdir() if not path.name.startswith("_")}
    assert {room for room in rooms if f"`{room}" not in page} == set()


def test_made_pages_are_what_their_script_makes() -> None:
    done = subprocess.run([sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
