"""Write what is made from the code: a page per recipe, their table, the command line's reference, a benchmark's table.

python docs/generate.py            write them
python docs/generate.py --check    exit 1 if any differs from what is committed
"""

import json
import sys
from pathlib import Path

import click

from tomogen import catalog
from tomogen.cli.__main__ import tomogen

DOCS = Path(__file__).parent
RECIPES = "<!-- recipes: made by docs/generate.py -->", "<!-- end of recipes -->"
MEMORY = "<!-- memory: made by docs/generate.py -->", "<!-- end of memory -->"


def recipe_sources() -> dict[str, str]:
    """Text of every recipe by name."""
    folder = Path(catalog.__file__).parent / "recipes"
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.toml"))}


def heading(text: str) -> list[str]:
    """The comment lines that open a recipe, without their marks."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return lines


def recipe_page(name: str, text: str) -> str:
    """A recipe's page: what it is, how to run it, every number with its source."""
    body = text[text.index("\n\n") :].strip() if "\n\n" in text else text
    return "\n".join(
        [
            f"# {name}",
            "",
            *heading(text),
            "",
            "```console",
            f"$ tomogen train {name} CASES RUN",
            f"$ tomogen recipes show {name} --resolved",
            f"$ tomogen recipes new {name} mine.toml",
            "```",
            "",
            "## The recipe",
            "",
            "```toml",
            body,
            "```",
            "",
        ]
    )


def recipe_table(prefix: str) -> str:
    """The table of recipes, for README and the site."""
    rows = ["| recipe | what it is |", "|---|---|"]
    rows += [f"| [`{name}`]({prefix}{name}.md) | {heading(text)[0]} |" for name, text in recipe_sources().items()]
    return "\n".join(rows)


def cli_reference() -> str:
    """`--help` of every verb, and of every way that a verb has."""
    context = click.Context(tomogen, info_name="tomogen", terminal_width=100, **tomogen.context_settings)
    parts = ["# Command line", "", "```text", tomogen.get_help(context), "```", ""]
    for name in tomogen.list_commands(context):
        command = tomogen.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=name, parent=context, terminal_width=100, **command.context_settings)
        parts += [f"## {name}", "", "```text", command.get_help(inner), "```", ""]
        for way in command.list_commands(inner) if isinstance(command, click.Group) else ():
            leaf = command.get_command(inner, way)
            assert leaf is not None
            own = click.Context(leaf, info_name=way, parent=inner, terminal_width=100, **leaf.context_settings)
            parts += [f"### {name} {way}", "", "```text", leaf.get_help(own), "```", ""]
    return "\n".join(parts)


def memory_table() -> str:
    """What `benchmarks/vae_memory.py` measured."""
    told = json.loads((DOCS.parent / "benchmarks" / "vae_memory.json").read_text(encoding="utf-8"))
    rows = ["| voxels | precision | checkpointing | peak, GiB | promised | core seconds |", "|---|---|---|--:|--:|--:|"]
    for row in told["rows"]:
        size, kept = " x ".join(map(str, row["shape"])), "yes" if row["checkpointing"] else "no"
        measured = f"{row['peak GiB']:.1f} | {row['promised GiB'] or ''} | {row['core s']:.1f}"
        rows.append(f"| {size} | {row['precision']} | {kept} | {measured} |")
    return "\n".join(rows)


def between(text: str, marks: tuple[str, str], made: str) -> str:
    """`text` with the part between the marks replaced."""
    start, end = marks
    head, _, rest = text.partition(start)
    _, _, tail = rest.partition(end)
    return f"{head}{start}\n{made}\n{end}{tail}"


def pages() -> dict[Path, str]:
    """Every made page and its text."""
    made = {DOCS / "recipes" / f"{name}.md": recipe_page(name, text) for name, text in recipe_sources().items()}
    made[DOCS / "cli.md"] = cli_reference()
    for path, prefix in ((DOCS.parent / "README.md", "docs/recipes/"), (DOCS / "recipes.md", "recipes/")):
        made[path] = between(path.read_text(encoding="utf-8"), RECIPES, recipe_table(prefix))
    latents = DOCS / "latents.md"
    made[latents] = between(latents.read_text(encoding="utf-8"), MEMORY, memory_table())
    return made


def main() -> int:
    """Write, or check."""
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(DOCS.parent)} is not what docs/generate.py makes")
        return int(bool(stale))
    for path in stale:
        path.write_text(pages()[path], encoding="utf-8")
        print(path.relative_to(DOCS.parent))
    return 0


if __name__ == "__main__":
    sys.exit(main())
