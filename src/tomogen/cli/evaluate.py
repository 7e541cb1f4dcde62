"""`tomogen evaluate`: scores against truth, against many, of a run; each with its definition, interval and floors."""

import shlex
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from tomogen.cli._core import Streams, verb
from tomogen.cli._reading import READING, taken

if TYPE_CHECKING:
    from tomogen.evaluate import Evaluation


def pairs(streams: Streams, **asked: Any) -> int:
    """Score the scans under MADE against those under TRUTH, voxel on voxel.

    One scan each, or two folders whose scans have the same names. Floors stand beside every score: the truth
    blurred by one voxel, and with --input and --train the scan before translation and the mean training scan.
    """
    from tomogen import evaluate

    options = taken(asked)
    with streams.progress("evaluate") as progress:
        found = evaluate.pairs(
            asked.pop("truth"), asked.pop("made"), **asked, commands=_typed(), options=options, progress=progress
        )
    return _told(streams, found)


def sets(streams: Streams, **asked: Any) -> int:
    """Score the scans under MADE against those under REAL, set against set.

    Slices and volumes become features of a named network; distances between the two sets follow, each beside its
    floor: real scans against other real scans. With fewer than 50 scans in a set there is no FID, and the exit code
    is 4, unless --require asks for other scores; KID and the others are given.
    """
    from tomogen import evaluate
    from tomogen.errors import DataInvalid, Reason

    options, required = taken(asked), asked["require"]
    with streams.progress("evaluate") as progress:
        found = evaluate.sets(
            asked.pop("real"), asked.pop("made"), **asked, commands=_typed(), options=options, progress=progress
        )
    code = _told(streams, found)
    if found.too_few and required:
        streams.warn(f"FID has {found.too_few}")
    elif found.too_few:
        raise DataInvalid(
            f"FID has {found.too_few}", reason=Reason.TOO_SMALL, fix="more scans, or KID, which has no bias at any n"
        )
    return code


def run(streams: Streams, **asked: Any) -> int:
    """Score what the model of RUN makes, by the held-out cases of the prepared folder DATA.

    Writes RUN/report/index.html and RUN/report/scores.json.
    """
    from tomogen import evaluate

    with streams.progress("evaluate") as progress:
        found = evaluate.run(asked.pop("run"), asked.pop("data"), **asked, commands=_typed(), progress=progress)
    return _told(streams, found)


def _typed() -> list[str]:
    """The command as it was typed, for the report."""
    context = click.get_current_context()
    words = context.command_path.split()
    for parameter in context.command.params:
        name = parameter.name or ""
        typed = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not typed or name in ("quiet", "verbose", "json"):
            continue
        value = context.params[name]
        flag = [] if isinstance(parameter, click.Argument) else [parameter.opts[0]]
        if value is True:
            words += flag
        else:
            for one in value if parameter.multiple else [value]:
                words += [*flag, _word(one)]
    return [shlex.join(words)]


def _word(value: Any) -> str:
    """A value as a flag takes it: `2,0.7,0.7` of lengths, `-1000,400` of a window."""
    from tomogen.intensity import Window

    numbers = (value.low, value.high) if isinstance(value, Window) else value
    return ",".join(f"{number:.12g}" for number in numbers) if isinstance(numbers, tuple) else str(value)


def _told(streams: Streams, found: "Evaluation") -> int:
    """Print the scores; 1 if a requirement is missed."""
    import json

    for text in found.missed:
        streams.warn(f"missed: {text}")
    if found.page is None and not streams.json:
        streams.note("a page with pictures: --out FOLDER")
    record = json.loads(found.scores.to_json()) | {"missed": list(found.missed), "page": found.page}
    text = found.scores.text(full=streams.verbose)
    streams.result(record, f"{text}\n\n{found.page}" if found.page else text)
    return 1 if found.missed else 0


_require = click.option(
    "--require", multiple=True, metavar="'METRIC<=LIMIT'", help="Exit 1 unless the score keeps this limit; repeatable."
)
_overwrite = click.option("--overwrite", is_flag=True, help="Replace an earlier report.")
_out = click.option("--out", metavar="FOLDER", default=None, help="Write a report there: index.html and scores.json.")
_patients = click.option(
    "--patients", metavar="CSV", default=None, help="Which scans are whose: columns path,patient. Else headers tell."
)
_network = (
    click.option(
        "--network", metavar="MODULE.py", default=None,
        help="A feature network of your own in place of the one that comes with tomogen.",
    ),
    click.option("--weights", metavar="FILE", default=None, help="Its weights, as safetensors."),
    click.option("--sha256", metavar="HEX", default=None, help="Refuse the weights unless they have this hash."),
)  # fmt: skip

command = click.Group(
    "evaluate",
    help="Scores: of pairs (against truth), of sets (against many), of a run. Each with definition, interval, floors.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for subcommand in (
    verb(
        click.argument("truth", metavar="TRUTH"),
        click.argument("made", metavar="MADE"),
        _out,
        click.option("--input", metavar="PATH", default=None, help="The scans before translation: scored as a floor."),
        click.option(
            "--train", metavar="PATH", default=None, help="Training scans: their mean is scored as a floor."
        ),
        click.option(
            "--mask", metavar="body|PATH", default=None,
            help="Voxels that count: the body of the truth, or label files with the scans' names.",
        ),
        click.option(
            "--structure", metavar="PATH", default=None,
            help="Label files of a structure, vessels say, for its contrast-to-noise ratio.",
        ),
        click.option(
            "--conventions", default="all", show_default=True, metavar="NAMES",
            help="Published conventions beside the standard one, by comma; standard for none.",
        ),
        click.option("--resample", is_flag=True, help="Bring made scans onto the truth's grid where it is another."),
        _patients, _require, _overwrite, *READING,
    )(pairs),
    verb(
        click.argument("real", metavar="REAL"),
        click.argument("made", metavar="MADE"),
        _out,
        click.option("--split", default=None, help="Of prepared cases only train, val or test."),
        click.option("--resample", is_flag=True, help="Bring all scans to the spacing of the first real one."),
        *_network,
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of random halves."),
        _patients, _require, _overwrite, *READING,
    )(sets),
    verb(
        click.argument("run", metavar="RUN"),
        click.argument("data", metavar="DATA"),
        _out,
        click.option("--n", type=click.IntRange(2), default=50, show_default=True, help="Samples to make and score."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the samples."),
        click.option("--split", default=None, help="Cases to score against; by default test, else val, else train."),
        *_network,
        click.option(
            "--conventions", default="standard", show_default=True, metavar="NAMES",
            help="Of a run that starts from a scan or radiographs: published conventions beside the standard one.",
        ),
        click.option(
            "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True,
            help="Where to compute samples.",
        ),
        _require, _overwrite,
    )(run),
):  # fmt: skip
    command.add_command(subcommand)
