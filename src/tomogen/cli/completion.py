"""`tomogen completion`: the script that makes a shell complete tomogen's verbs and flags."""

import click

from tomogen.cli._core import Streams, verb


def completion(streams: Streams, shell: str) -> None:
    """Print the completion script for SHELL, to be sourced by it.

    bash: `source <(tomogen completion bash)` in ~/.bashrc; zsh likewise; fish:
    `tomogen completion fish > ~/.config/fish/completions/tomogen.fish`.
    """
    from click.shell_completion import get_completion_class

    from tomogen.cli.__main__ import tomogen

    maker = get_completion_class(shell)
    assert maker is not None, "click.Choice admits only shells that click knows"
    script = maker(tomogen, {}, "tomogen", "_TOMOGEN_COMPLETE").source()
    streams.result({"script": script}, script)


command = verb(click.argument("shell", type=click.Choice(["bash", "zsh", "fish"])))(completion)
