"""`tomogen recipes`: what can be trained, and how to make it one's own."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb


def list_(streams: Streams) -> None:
    """The recipes that come with tomogen."""
    from tomogen.recipe import names

    found = names()
    width = max(map(len, found), default=0)
    streams.result({"recipes": found}, "\n".join(f"{name:<{width}}  {text}" for name, text in found.items()))


def show(streams: Streams, recipe: str, resolved: bool, set: tuple[str, ...]) -> None:
    """The text of RECIPE; or, resolved, every value that it comes to and where that comes from."""
    from tomogen.recipe import Recipe, find

    if not (resolved or set or streams.json):
        streams.result({}, find(recipe).read_text().rstrip("\n"))
        return
    read = Recipe.load(recipe, set)
    values = {key: {"value": value, "origin": read.origins.get(key, "default")} for key, value in read.values().items()}
    streams.result({"name": read.name, "hash": read.hash, "values": values}, read.resolved().rstrip("\n"))


def new(streams: Streams, recipe: str, file: str) -> None:
    """Write FILE, a recipe that extends RECIPE, with every value there as a comment to be changed."""
    from pathlib import Path

    from tomogen.errors import UsageFault
    from tomogen.recipe import template
    from tomogen.storage import whole

    path = Path(file)
    if path.exists():
        raise UsageFault("there is a file already", at=path, fix="give another name")
    text = template(recipe)
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")
    streams.result({"file": file}, file)


def check(streams: Streams, recipe: str, set: tuple[str, ...]) -> None:
    """Say whether RECIPE fits: its keys, types and ranges, and the model's own rules."""
    from tomogen.recipe import Recipe

    read = Recipe.load(recipe, set)
    streams.result({"recipe": recipe, "hash": read.hash}, f"{recipe}: fits ({read.hash})")


def schema(streams: Streams) -> None:
    """The JSON Schema of recipes, for editors and forms."""
    import json

    from tomogen.recipe import schema as of

    found = of()
    streams.result({"recipe": found}, json.dumps(found, indent=1))


class Recipes(click.Group):
    """`recipes` alone is `recipes list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in where no subcommand is named."""
        named = any(word in self.commands for word in args) or any(word in ("-h", "--help") for word in args)
        return super().parse_args(ctx, args if named or (args and not args[0].startswith("-")) else ["list", *args])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with the nearest subcommand named when there is none of that name."""
        import difflib

        if args and args[0] not in self.commands:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; there are: {', '.join(self.commands)}"
            raise click.UsageError(f"no such command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


_recipe = click.argument("recipe", metavar="RECIPE")
_set = click.option("--set", metavar="KEY=VALUE", multiple=True, help="Override a value, as `train` does.")

command = Recipes(
    "recipes",
    help="What can be trained: list, show, new, check, schema. RECIPE is a name, or the path of a TOML file.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for subcommand in (
    verb()(list_),
    verb(_recipe, click.option("--resolved", is_flag=True, help="Every value, with its origin."), _set)(show),
    verb(_recipe, click.argument("file", metavar="FILE"))(new),
    verb(_recipe, _set)(check),
    verb()(schema),
):
    command.add_command(subcommand)
