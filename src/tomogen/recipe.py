"""Recipe: everything that decides how a model is trained, in one TOML file.

A recipe may extend another; a file, what it extends and `--set` are merged key by key, and each value remembers
where it came from. Unknown keys are errors. `[model]` is checked against the `Config` of the model's module.
"""

import difflib
import functools
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from tomogen import catalog, recipes
from tomogen.errors import InputMissing, RecipeMismatch, TomogenError, UsageFault

if TYPE_CHECKING:
    from tomogen.synthesizer import Synthesizer

SECTIONS = ("model", "data", "training", "optimizer")

BOOKKEEPING = ("training.steps", "training.checkpoint_every", "training.preview_every", "training.keep")
"""What a resumed run may change: how long it runs and what it leaves on the way, not what it computes."""

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Data:
    """`[data]`: how scans become what the model sees."""

    window: tuple[float, float] = (-1000.0, 400.0)
    """HU that become -1 and 1."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Random shift of each scan, at most this many voxels along each axis."""
    labels: str | None = None
    """CSV of the classes of the cases, for a model with classes: the columns `label` and `case`, or `path`."""

    def __post_init__(self) -> None:
        if not self.window[0] < self.window[1]:
            raise RecipeMismatch(f"`window`: {list(self.window)} does not rise")


@dataclass(frozen=True, kw_only=True)
class Training:
    """`[training]`: how long, in which portions, and what is kept."""

    steps: Annotated[int, Field(ge=0)] = 10_000
    """Rounds of the game: in each, every player moves as often as the model's turns say."""
    batch: Annotated[int, Field(ge=1)] = 4
    """Images per turn, over all processes together."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Images that one process takes at once; their gradients add up to the batch's. All of its share if not set."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: networks in bfloat16 where they allow it, weights and losses in float32."""
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of the moving average of the weights that generation uses; no average if not set."""
    clip_gradient: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of a player's gradient; not clipped if not set."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    """Steps from one checkpoint to the next."""
    preview_every: Annotated[int, Field(ge=1)] = 500
    """Steps from one preview to the next."""
    keep: Annotated[int, Field(ge=1)] = 3
    """Checkpoints that are kept."""
    publish: Literal["last", "best"] = "last"
    """Which weights generation gets: the last, or those of the preview at which held-out images came out best."""
    seed: Annotated[int, Field(ge=0)] = 0
    """All randomness of a run follows from this number."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """`[optimizer]`, and `[optimizer.<player>]` for what differs for one player."""

    kind: Literal["adam", "rmsprop"] = "adam"
    lr: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.9)
    """Of Adam: decay of the mean and of the mean square of the gradient."""
    alpha: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of RMSprop: decay of the mean square of the gradient."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    decay: Literal["none", "linear", "inverse"] = "none"
    """How the rate falls t steps after `decay_start`: linear, by 1 - t / `decay_steps`, to one step above nothing;
    inverse, by 1 / (1 + t / `decay_steps`)."""
    decay_start: Annotated[int, Field(ge=0)] = 0
    """Steps before the rate begins to fall."""
    decay_steps: Annotated[int, Field(ge=1)] = 10_000
    """Steps over which it falls to nothing (linear) or to half (inverse)."""

    def rate(self, step: int) -> float:
        """The learning rate of step `step` (from 0): a function of the step alone, wherever a sitting began."""
        passed = max(0, step - self.decay_start) / self.decay_steps
        if self.decay == "linear":
            return self.lr * max(1 - passed, 1 / self.decay_steps)
        return self.lr / (1 + passed) if self.decay == "inverse" else self.lr


@dataclass(frozen=True)
class Recipe:
    """A recipe as it was read: sections with their defaults, and each given value's origin."""

    name: str
    """File name without its ending."""
    model: str
    """Module in `models/`."""
    fields: Mapping[str, Any]
    """Fields of that module's `Config`, as given."""
    data: Data
    training: Training
    optimizer: Optimizer
    players: Mapping[str, Mapping[str, Any]]
    """What `[optimizer.<player>]` gives, by player."""
    origins: Mapping[str, str]
    """Dotted key: file and line, or the `--set` that gave it; keys that are absent have their default."""

    @classmethod
    def load(cls, source: str | Path, set: Sequence[str] = ()) -> "Recipe":
        """The recipe of a name that `names()` lists, or of a TOML file, with `key.path=value` overrides.

        Raises:
            InputMissing: there is no such recipe.
            RecipeMismatch: a key is unknown, or a value has the wrong type or range.
            UsageFault: an override is not `key=value`.
        """
        path = find(source)
        tree, origins = _merged(path, ())
        for assignment in set:
            _override(tree, origins, assignment)
        return cls._checked(path.stem, tree, origins)

    @classmethod
    def _checked(cls, name: str, tree: dict[str, Any], origins: dict[str, str]) -> "Recipe":
        _refuse_unknown("", tree, SECTIONS, origins)
        for section in SECTIONS:
            if not isinstance(tree.setdefault(section, {}), dict):
                raise RecipeMismatch(f"`{section}`: a table [{section}] is expected", at=origins.get(section))
        model = dict(tree["model"])
        kind = model.pop("name", None)
        if not isinstance(kind, str):
            raise RecipeMismatch("`model.name` is missing: the model to train", at=name)
        players = {key: value for key, value in tree["optimizer"].items() if isinstance(value, dict)}
        common = {key: value for key, value in tree["optimizer"].items() if key not in players}
        for player, values in players.items():
            checked(Optimizer, common | values, f"optimizer.{player}", origins)
        return cls(
            name=name,
            model=kind,
            fields=model,
            data=checked(Data, tree["data"], "data", origins),
            training=checked(Training, tree["training"], "training", origins),
            optimizer=checked(Optimizer, common, "optimizer", origins),
            players=players,
            origins=origins,
        )

    @functools.cached_property
    def config(self) -> Any:
        """The model's `Config`, checked; the names of players in `[optimizer]` too. Imports the model.

        Raises:
            RecipeMismatch: there is no such model, field or player, or a value does not fit.
        """
        try:
            module = catalog.load("models", self.model)
        except LookupError:
            raise RecipeMismatch(
                f"`model.name`: no model {self.model!r}{_near(self.model, catalog.names('models'))}",
                at=self.origins.get("model.name"),
            ) from None
        config = checked(module.Config, self.fields, "model", self.origins)
        _refuse_unknown("optimizer", self.players, module.Model.players, self.origins)
        return config

    def build(self) -> "Synthesizer":
        """The model with fresh weights, drawn from torch's global generator."""
        from tomogen.synthesizer import Synthesizer

        config = self.config  # checked first: it names what does not fit
        model = catalog.load("models", self.model).Model(config)
        if not isinstance(model, Synthesizer):
            raise TypeError(f"models/{self.model}: Model is no Synthesizer")
        return model

    def optimizer_of(self, player: str) -> Optimizer:
        """What `[optimizer]` and `[optimizer.<player>]` say together."""
        given = {key: value for key, value in asdict(self.optimizer).items() if f"optimizer.{key}" in self.origins}
        return checked(Optimizer, given | dict(self.players.get(player, {})), f"optimizer.{player}", self.origins)

    def values(self) -> dict[str, Any]:
        """Every value that a run uses, defaults included, by dotted key; lists for tuples."""
        tree = {"model": {"name": self.model} | asdict(self.config), "data": asdict(self.data)}
        tree |= {"training": asdict(self.training), "optimizer": asdict(self.optimizer)}
        flat = {f"{section}.{key}": value for section in SECTIONS for key, value in tree[section].items()}
        for player, values in self.players.items():
            flat |= {f"optimizer.{player}.{key}": value for key, value in values.items()}
        plain: dict[str, Any] = json.loads(json.dumps(flat))
        return plain

    @property
    def hash(self) -> str:
        """Of all values but the bookkeeping: 16 hexadecimal digits that name what is computed."""
        kept = {key: value for key, value in self.values().items() if key not in BOOKKEEPING}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: "Recipe") -> list[str]:
        """`key: this one's value -> the other's`, for every value that decides what is computed."""
        mine, theirs = self.values(), other.values()
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [
            f"{key}: {_word(mine.get(key))} -> {_word(theirs.get(key))}"
            for key in keys
            if key not in BOOKKEEPING and mine.get(key) != theirs.get(key)
        ]

    def resolved(self) -> str:
        """The whole recipe as TOML, every value with its origin; reading it gives an equal recipe."""
        lines = [f"# {self.name}, resolved: every value that is used, and where it came from."]
        table = ""
        for key, value in self.values().items():
            section, _, name = key.rpartition(".")
            if section != table:
                lines += ["", f"[{section}]"]
                table = section
            origin = self.origins.get(key, "default")
            lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml(value)}  # {origin}")
        return "\n".join(lines) + "\n"


def names() -> dict[str, str]:
    """The recipes that come with tomogen, by name, each with the sentence of its first comment line."""
    folder = Path(recipes.__path__[0])
    return {path.stem: _sentence(path.read_text()) for path in sorted(folder.glob("*.toml"))}


def find(source: str | Path) -> Path:
    """The file of a recipe that is given by name or by path.

    Raises:
        InputMissing: there is none; the message names the nearest.
    """
    path = Path(source)
    if path.is_file():
        return path
    shipped = Path(recipes.__path__[0]) / f"{source}.toml"
    if path.name == str(source) and shipped.is_file():
        return shipped
    raise InputMissing(f"no recipe {str(source)!r}{_near(str(source), names())}", fix="tomogen recipes list")


def template(base: str) -> str:
    """TOML of a recipe that extends `base`: every value that could be changed stands there as a comment."""
    body = Recipe.load(base).resolved().split("\n\n", 1)[1]
    values = (line.partition("  #")[0] for line in body.split("\n"))
    lines = [f"# {line}" if line and line[0] not in "[#" else line for line in values]
    return "\n".join([f"# Like {base}, but for what is uncommented below.", "", f'extends = "{base}"', "", *lines])


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe; `[model]` is that of one of the models. Imports all of them."""
    models = {}
    for name in catalog.names("models"):
        model = _object(catalog.load("models", name).Config)
        model["properties"] = {"name": {"const": name}} | model.get("properties", {})
        models[name] = model | {"required": ["name", *model.get("required", [])]}
    optimizer = _object(Optimizer)
    players = {"additionalProperties": {**optimizer, "title": "One player's optimizer"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tomogen recipe",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "extends": {"type": "string"},
            "model": {"anyOf": list(models.values())},
            "data": _object(Data),
            "training": _object(Training),
            "optimizer": optimizer | players,
        },
    }


def _object(kind: Any) -> dict[str, Any]:
    return TypeAdapter(kind).json_schema() | {"additionalProperties": False}


def checked(kind: type[Part], values: Mapping[str, Any], section: str, origins: Mapping[str, str]) -> Part:
    """`values` as the dataclass `kind`: no unknown key, every type and range as declared.

    Raises:
        RecipeMismatch: the first thing that does not fit, with the file and line of `origins`.
    """
    _refuse_unknown(section, values, [field.name for field in fields(kind)], origins)  # type: ignore[arg-type]
    try:
        # Through JSON: strict about types ("64" is no number), and an array fits a tuple.
        return TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as invalid:
        first = invalid.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, TomogenError):
        found = re.match(r"`(\w+)`", cause.what)
        raise RecipeMismatch(cause.what, at=_origin(section, found and found[1], origins), fix=cause.fix)
    if cause is not None:
        raise RecipeMismatch(f"[{section}]: {cause}", at=_origin(section, None, origins))
    field = str(first["loc"][0]) if first["loc"] else ""
    message = first["msg"].removeprefix("Input should be ")
    raise RecipeMismatch(
        f"`{field}`: {_word(values.get(field))} does not fit; expected: {message}", at=_origin(section, field, origins)
    )


def _refuse_unknown(section: str, values: Mapping[str, Any], known: Sequence[str], origins: Mapping[str, str]) -> None:
    for key in values:
        if key not in known:
            where = f" in [{section}]" if section else ""
            hint = _near(key, known) or f"; known: {', '.join(known)}"
            raise RecipeMismatch(f"`{key}`: unknown{where}{hint}", at=_origin(section, key, origins))


def _origin(section: str, key: str | None, origins: Mapping[str, str]) -> str | None:
    dotted = ".".join(part for part in (section, key) if part)
    inside = (origin for name, origin in origins.items() if name.startswith(f"{dotted}."))
    common = f"{section.split('.')[0]}.{key}"
    return origins.get(dotted) or origins.get(common) or next(inside, None)


def _merged(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The tables of a file over those of what it extends, and the origin of every value."""
    if path.resolve() in above:
        raise RecipeMismatch(f"`extends`: {path.name} extends itself", at=path.name)
    try:
        text = path.read_text(encoding="utf-8")
        own = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeMismatch(f"not TOML: {error}", at=path) from None
    lines = dict(_lines(text))
    found = {key: f"{path.name}, line {lines[key]}" if key in lines else path.name for key, _ in _leaves(own)}
    base = own.pop("extends", None)
    if base is None:
        return own, found
    if not isinstance(base, str):
        raise RecipeMismatch("`extends`: the name or the path of one recipe", at=found["extends"])
    beside = path.parent / base
    tree, origins = _merged(beside if beside.is_file() else find(base), (*above, path.resolve()))
    model = own.get("model", {})
    if isinstance(model, dict) and model.get("name", tree.get("model", {}).get("name")) != tree["model"]["name"]:
        # Another model has other fields: nothing of the old one's may stay.
        tree.pop("model")
    _lay_over(tree, own)
    origins = {key: origin for key, origin in origins.items() if key in dict(_leaves(tree))}
    return tree, origins | {key: origin for key, origin in found.items() if key != "extends"}


def _lay_over(tree: dict[str, Any], own: Mapping[str, Any]) -> None:
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _lay_over(tree[key], value)
        else:
            tree[key] = value


def _override(tree: dict[str, Any], origins: dict[str, str], assignment: str) -> None:
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise UsageFault(f"--set {assignment}: not section.key=value", fix="--set training.batch=2")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word, as in training.precision=bf16
    table = tree
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise RecipeMismatch(f"`{part}`: a value, not a table", at=f"--set {assignment}")
    table[parts[-1]] = value
    origins[".".join(parts)] = f"--set {assignment}"


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Dotted keys and the lines they stand on. For messages: a key inside a multi-line string may mislead it."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = "".join(header[1].split()) + "."
        elif key := re.match(r"\s*([\w.\-]+)\s*=", line):
            yield table + key[1], number


def _sentence(text: str) -> str:
    first = text.lstrip().splitlines()[0] if text.strip() else ""
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def _near(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _word(value: Any) -> str:
    return "not set" if value is None else _toml(value)


def _toml(value: Any) -> str:
    """A value as TOML writes it; its strings and numbers are those of JSON."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
