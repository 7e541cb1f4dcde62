"""`tomogen train RECIPE DATA OUT`: a recipe and prepared cases to a trained run."""

from typing import Any

import click

from tomogen.cli._core import Streams, verb


def train(streams: Streams, recipe: str, data: str, out: str, **options: Any) -> None:
    """Train RECIPE (a name of `tomogen recipes`, or a TOML file) on the prepared cases in DATA, into the folder OUT.

    The first Ctrl-C finishes the step and saves; `--resume` goes on as if nothing had happened.
    """
    from tomogen.training.launch import train as play

    with streams.progress("train") as progress:
        result = play(recipe, data, out, **options, progress=progress, warn=streams.warn)
    size = ", ".join(f"{player} {count:,}" for player, count in result.parameters.items())
    where = f"{result.processes} x {result.device}"
    would = f"would train {result.steps} steps on {result.cases} cases with {where}; weights: {size}"
    streams.result(result, would if result.dry_run else str(result.run))


command = verb(
    click.argument("recipe", metavar="RECIPE"),
    click.argument("data", metavar="DATA"),
    click.argument("out", metavar="OUT"),
    click.option("--set", metavar="KEY=VALUE", multiple=True, help="Override the recipe: --set training.batch=2."),
    click.option("--steps", type=click.IntRange(0), help="Rounds of the game; otherwise the recipe's."),
    click.option("--resume", is_flag=True, help="Go on from the last checkpoint in OUT."),
    click.option("--overwrite", is_flag=True, help="Remove the run that OUT holds and start anew."),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    ),
    click.option("--devices", type=click.IntRange(1), help="Processes per node; otherwise as torchrun or SLURM say."),
    click.option("--nodes", type=click.IntRange(1), default=1, show_default=True, help="Machines."),
    click.option(
        "--strategy",
        type=click.Choice(["auto", "ddp", "fsdp"]),
        default="auto",
        show_default=True,
        help="How processes share: whole copies (ddp), or the weights in parts (fsdp).",
    ),
    click.option("--precision", type=click.Choice(["fp32", "bf16"]), help="Otherwise the recipe's."),
    click.option("--seed", type=click.IntRange(0), help="Another seed, other weights; otherwise the recipe's."),
    click.option("--tensorboard", is_flag=True, help="The losses for TensorBoard too."),
    click.option("--dry-run", is_flag=True, help="Check everything, write nothing."),
    click.option("--threads", type=click.IntRange(1), help="Threads per process; otherwise as torch decides."),
)(train)
