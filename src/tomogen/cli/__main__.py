"""`tomogen` and `python -m tomogen`: the verbs, each imported only when it is called for."""

import difflib
import importlib
import pkgutil
import sys
from typing import Any

import click

from tomogen import cli
from tomogen._version import __version__

ORDER = (
    "demo", "doctor", "phantom", "prepare", "recipes", "train", "sample", "walk", "encode", "xray", "reconstruct",
    "translate", "evaluate", "report", "convert", "view", "adopt", "completion",
)  # fmt: skip
"""The order of `--help`: a user's way through the house. Verbs not named here follow by name."""


class Verbs(click.Group):
    """The files of `tomogen/cli` as commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the verbs, in the order of use."""
        found = {module.name for module in pkgutil.iter_modules(cli.__path__) if not module.name.startswith("_")}
        return [name for name in ORDER if name in found] + sorted(found - set(ORDER))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command in the verb's file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command = importlib.import_module(f"tomogen.cli.{cmd_name}").command
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb named when there is none of that name."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"no such command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.command(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TOMOGEN"},
    epilog="`tomogen VERB --help` shows a verb. Start with `tomogen demo`. A flag may be set in the environment: "
    "TOMOGEN_TRAIN_THREADS=8 stands for `train --threads 8`.",
)
@click.version_option(__version__, message="tomogen %(version)s")
def tomogen() -> None:
    """Generative CT: scans in, trained models, synthetic scans out, in true Hounsfield units."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; usage errors are one line and exit code 2."""
    stdout = sys.stdout
    try:
        return tomogen.main(arguments, prog_name="tomogen", standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except SystemExit as done:
        if sys.stdout is not stdout:  # click puts another there, and says 1, when `head` closes a help page
            done.code = 141
        raise
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        click.echo(f"error: {_lower(error)}", err=True)
        if context is not None and context.command is not None:
            click.echo(f"  fix: {context.command_path} --help", err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("error: interrupted", err=True)
        sys.exit(130)


def _lower(error: click.ClickException) -> str:
    """Click's message in the house's form: no capital, no full stop, the nearest option named."""
    if isinstance(error, click.NoSuchOption):
        hint = f"; did you mean '{error.possibilities[0]}'?" if error.possibilities else ""
        return f"no such option '{error.option_name}'{hint}"
    text = error.format_message().rstrip(".")
    return text[:1].lower() + text[1:]


if __name__ == "__main__":
    main()
