"""Scores: strict JSON and back, unlike definitions kept apart, text that can be read."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tomogen.errors import DataInvalid, InputMissing, Reason, UsageFault
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import WIDTH, Scores
from tomogen.evaluation.words import Footnotes, sentence, terms

PSNR = Definition(
    metric="psnr",
    unit="dB",
    better="higher",
    range=(-1024, 3000),
    reduction="mean over patients of the mean over scans",
    n=(12,),
    parameters={"peak": 4024},
    versions={"tomogen": "0.1"},
)

words = st.text(max_size=8).filter(lambda word: word not in ("nan", "inf", "-inf"))  # how JSON has such numbers
anything = st.floats()
definitions = st.builds(
    Definition,
    metric=words,
    convention=words,
    unit=words,
    better=st.sampled_from(["", "lower", "higher"]),
    range=st.none() | st.tuples(anything, anything),
    mask=words,
    axis=words,
    reduction=words,
    n=st.lists(st.integers(0, 2**40), max_size=2).map(tuple),
    features=words,
    preprocessing=words,
    parameters=st.dictionaries(words, anything | st.integers() | words),
    departs=words,
    versions=st.dictionaries(words, words),
)
numbers = st.none() | st.tuples(anything, anything)
scores = st.builds(
    Score,
    value=anything,
    interval=numbers,
    definition=definitions,
    cases=st.dictionaries(words, anything),
    note=words,
)


def score(value: float = 27.961, half: float | None = 0.85, **changes: object) -> Score:
    """A PSNR with an interval of `half` to each side; `changes` to its definition."""
    interval = None if half is None else (value - half, value + half)
    return Score(value=value, interval=interval, definition=replace(PSNR, **changes))  # type: ignore[arg-type]


def refuse(name: str) -> float:
    raise AssertionError(f"{name} is no JSON")


@settings(max_examples=20)
@given(score=scores)
def test_a_score_returns_from_strict_json_as_it_was(score: Score) -> None:
    text = json.dumps(score.record(), allow_nan=False)
    assert json.loads(text) == score.record()
    again = Score.of_record(json.loads(text, parse_constant=refuse))
    assert repr(again) == repr(score)  # NaN equals itself only in print


def test_what_is_not_finite_is_a_word_in_json() -> None:
    endless = Score(
        value=math.inf, interval=(-math.inf, math.inf), definition=PSNR, cases={"a": math.nan, "b": math.inf}
    )
    record = json.loads(json.dumps(endless.record(), allow_nan=False))
    assert record["value"] == "inf"
    assert record["interval"] == ["-inf", "inf"]
    assert record["cases"] == {"a": "nan", "b": "inf"}
    assert Score.of_record(record).cases["b"] == math.inf


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"value": "27"}, "value"),
        ({"value": None}, "value"),
        ({"interval": [1.0]}, "interval"),
        ({"cases": {"a": []}}, "cases.a"),
        ({"colour": 1}, "colour"),
        ({"definition": {"metric": "psnr", "peak": 1}}, "peak"),
        ({"definition": {"metric": 3}}, "metric"),
        ({"definition": {"unit": "HU"}}, "metric"),
        ({"definition": {"metric": "a", "range": [0]}}, "range"),
        ({"definition": "psnr"}, "definition"),
    ],
)
def test_a_record_that_is_no_score_is_refused_with_the_field_named(damage: dict[str, object], named: str) -> None:
    with pytest.raises(DataInvalid, match=named) as refused:
        Score.of_record(score().record() | damage)
    assert refused.value.reason is Reason.CORRUPT
    assert refused.value.fix


@pytest.mark.parametrize("missing", ["value", "interval", "definition"])
def test_a_record_without_what_a_score_needs_is_refused(missing: str) -> None:
    record = score().record()
    del record[missing]
    with pytest.raises(DataInvalid, match=missing):
        Score.of_record(record)


def test_scores_of_one_definition_are_compared() -> None:
    near, far = score(28.0, 1.0), score(25.5, 1.0)
    assert near.compare(far).difference == 2.5
    assert far.compare(near).difference == -2.5
    assert near.compare(far).disjoint is True
    assert near.compare(score(27.0, 1.0)).disjoint is False
    assert near.compare(score(26.0, 1.0)).disjoint is False  # they share the value 27
    assert score(26.0, 1.0).compare(near).disjoint is False
    assert score(25.5, 1.0).compare(near).disjoint is True
    assert near.compare(score(20.0, None)).disjoint is None
    assert str(near.compare(far)) == "+2.5 dB, intervals disjoint"


def test_infinite_scores_compare() -> None:
    assert score(math.inf, None).compare(score(math.inf, None)).difference == 0
    assert score(math.inf, None).compare(score(30.0)).difference == math.inf
    assert math.isnan(score(math.nan, None).compare(score(30.0)).difference)


OTHER = {
    "metric": "ssim",
    "convention": "x2ct2019",
    "unit": "HU",
    "better": "lower",
    "range": (0.0, 2500.0),
    "mask": "body",
    "axis": "axial",
    "reduction": "mean over voxels",
    "n": (11,),
    "features": "random_conv",
    "preprocessing": "clipped",
    "parameters": {"peak": 4095},
    "departs": "the peak",
}


@pytest.mark.parametrize("name", [item.name for item in fields(Definition) if item.name != "versions"])
def test_every_field_of_a_definition_keeps_unlike_scores_apart(name: str) -> None:
    with pytest.raises(DataInvalid, match=f"{name}: ") as refused:
        score().compare(score(**{name: OTHER[name]}))
    assert refused.value.reason is Reason.MIXED
    with pytest.raises(ValueError, match=f"{name}: "):
        score(**{name: OTHER[name]}).compare(score())


def test_all_differences_are_named_at_once() -> None:
    with pytest.raises(DataInvalid) as refused:
        score().compare(score(mask="body", range=None))
    assert "range: (-1024, 3000) against none" in refused.value.what
    assert "mask: none against body" in refused.value.what


def test_other_versions_do_not_make_scores_unlike() -> None:
    assert score().compare(score(versions={"tomogen": "9"})).difference == 0


@pytest.mark.parametrize(
    ("value", "interval", "unit", "shown"),
    [
        (27.961, (27.1, 28.81), "dB", "27.96 dB [27.1, 28.8]"),
        (27.961, None, "dB", "27.96 dB"),
        (0.91234, (0.9079, 0.9168), "", "0.91234 [0.9079, 0.9168]"),
        (812.4, (512.3, 1399.0), "HU", "812.4 HU [512, 1399]"),
        (3.21e-5, (1.2e-5, 5.2e-5), "", "3.21e-05 [1.2e-05, 5.2e-05]"),
        (-0.02, (-0.31, 0.27), "", "-0.020 [-0.31, 0.27]"),
        (math.inf, None, "dB", "inf dB"),
        (math.nan, None, "HU", "nan HU"),
        (5.0, (5.0, 5.0), "HU", "5 HU [5, 5]"),
        (0.0, (0.0, 0.0), "HU", "0 HU [0, 0]"),
        (30.0, (25.0, math.inf), "dB", "30 dB [25, inf]"),
    ],
)
def test_a_score_prints_as_many_digits_as_its_interval_bears(
    value: float, interval: tuple[float, float] | None, unit: str, shown: str
) -> None:
    assert str(Score(value=value, interval=interval, definition=replace(PSNR, unit=unit))) == shown


@given(value=anything, interval=numbers)
def test_every_score_prints_in_one_short_line(value: float, interval: tuple[float, float] | None) -> None:
    score = Score(value=value, interval=interval, definition=PSNR)
    assert len(score.figure.splitlines()) == 1
    assert len(score.figure) < 70


def test_a_sentence_says_what_a_score_is_of() -> None:
    assert sentence(PSNR) == (
        "PSNR in dB (higher is better), standard; HU -1024..3000; all voxels; 3D; "
        "mean over patients of the mean over scans; n = 12; peak 4024"
    )


def test_a_sentence_says_how_a_convention_departs() -> None:
    told = sentence(replace(PSNR, convention="x2ct2019", departs="the peak is 4095", range=None, n=(50, 40)))
    assert "as x2ct2019 has it; HU as they are;" in told
    assert "n = 50 real, 40 made" in told
    assert told.endswith("departs from the standard: the peak is 4095")


@pytest.mark.parametrize("name", sorted(OTHER))
def test_what_keeps_definitions_apart_is_in_their_sentences(name: str) -> None:
    assert sentence(PSNR) != sentence(replace(PSNR, **{name: OTHER[name]}))


MADE, BLURRED = "made", "floor: blurred truth"


def side_by_side() -> Scores:
    """Two subjects, one of them under a convention besides, an infinite value, a note."""
    ssim = {"metric": "ssim", "unit": "", "parameters": {"window": 11, "sigma": 1.5}}
    bone = Score(
        value=math.nan, interval=None, definition=replace(PSNR, metric="mae/bone", unit="HU"), note="no bone there"
    )
    other = score(math.inf, None, convention="x2ct2019", departs="the peak is 4095")
    return Scores(
        kind="pairs",
        subjects={MADE: [other, score(), score(0.912, 0.004, **ssim), bone], BLURRED: [score(22.0)]},
        notes=["one patient lacks bone"],
        facts={"truth": "Prüfung", "seconds": "1.2"},
    )


def test_a_table_has_a_row_for_each_metric_and_convention_the_standard_first() -> None:
    rows = side_by_side().table()
    assert [(row.metric, row.convention) for row in rows] == [
        ("psnr", "standard"),
        ("ssim", "standard"),
        ("mae/bone", "standard"),
        ("psnr", "x2ct2019"),
    ]
    assert [row.unit for row in rows] == ["dB", "", "HU", "dB"]
    blurred = rows[0].scores[BLURRED]
    assert blurred is not None
    assert blurred.value == 22
    assert [row.scores[BLURRED] for row in rows[1:]] == [None, None, None]


@pytest.mark.parametrize(
    "name", [item.name for item in fields(Definition) if item.name not in ("versions", "metric", "convention")]
)
def test_a_table_refuses_unlike_definitions_in_one_row(name: str) -> None:
    mixed = Scores(kind="pairs", subjects={MADE: [score()], BLURRED: [score()], "x": [score(**{name: OTHER[name]})]})
    with pytest.raises(DataInvalid, match=f"{name}: ") as refused:
        mixed.table()
    assert "'made'" in refused.value.what
    assert "'x'" in refused.value.what
    with pytest.raises(DataInvalid):
        mixed.text()


def test_a_subject_has_one_score_of_a_metric_and_convention() -> None:
    with pytest.raises(DataInvalid, match="two scores of psnr") as refused:
        Scores(kind="pairs", subjects={MADE: [score(), score(mask="body")]})
    assert refused.value.reason is Reason.DUPLICATE


def test_a_score_is_found_by_name_or_what_there_is_is_listed() -> None:
    found = side_by_side()
    assert found.get(BLURRED, "psnr").value == 22
    assert found.get(MADE, "psnr", "x2ct2019").value == math.inf
    with pytest.raises(UsageFault, match=r"psnr \(x2ct2019\), psnr \(standard\), ssim \(standard\)"):
        found.get(MADE, "mae")
    with pytest.raises(UsageFault, match="made, floor: blurred truth"):
        found.get("floor: input", "psnr")


def test_text_shows_every_score_definition_note_and_fact() -> None:
    text = side_by_side().text()
    for expected in (
        "27.96 [27.1, 28.8]", "22.00 [21.1, 22.9]", "inf", "nan*", "blurred truth", "x2ct2019", "no bone there",
        "one patient lacks bone", "truth: Prüfung", "window 11, sigma 1.5", "departs from the standard",
    ):  # fmt: skip
        assert expected in text
    assert "all standard; HU -1024..3000; all voxels" in text
    brief = side_by_side().text(full=False)
    assert "no bone there" in brief
    assert "mae/bone  HU" not in brief
    assert "the peak is 4095" not in brief


def of_sets() -> list[Definition]:
    """Two metrics with a constant and one without, in two planes; and one metric of another kind."""
    view = {"unit": "", "parameters": {}, "reduction": "a row a slice; patients resampled", "n": (16, 16)}
    return [
        replace(PSNR, metric=f"{metric}/{plane}", axis=plane, **(view | {"parameters": parameters}))  # type: ignore[arg-type]
        for plane in ("axial", "coronal")
        for metric, parameters in (("fid", {}), ("kid", {"kernel": "cubic"}), ("recall", {"k": 5}))
    ] + [replace(PSNR, metric="hu_histogram", parameters={}, reduction="of the histograms")]


def test_what_metrics_look_at_together_is_said_once() -> None:
    definitions = of_sets()
    footnotes = Footnotes.of(definitions)
    assert [footnotes.marks[terms(one)] for one in definitions] == [
        ("A",), ("A", "1"), ("A", "2"), ("B",), ("B", "1"), ("B", "2"), ("3",),
    ]  # fmt: skip
    assert footnotes.shared == "standard; HU -1024..3000; all voxels"
    assert list(footnotes.words) == [
        ("A", "axial slices; a row a slice; patients resampled; n = 16 real, 16 made"),
        ("B", "as A, but coronal slices in place of axial slices"),
        ("1", "kernel cubic"),
        ("2", "k 5"),
        ("3", "3D; of the histograms; n = 12"),
    ]


@settings(max_examples=60)
@given(st.data())
def test_footnotes_keep_unlike_definitions_apart(data: st.DataObject) -> None:
    kinds = {
        "range": [None, (-1024, 3000)], "mask": ["none", "body"], "axis": ["3d", "axial", "coronal"],
        "n": [(4,), (9, 9)], "reduction": ["", "mean", "mean; interval: x"],
        "parameters": [{}, {"k": 5}, {"k": 5, "sigma": 1.5}], "departs": ["", "the peak"],
    }  # fmt: skip
    drawn = data.draw(st.lists(st.fixed_dictionaries({name: st.sampled_from(of) for name, of in kinds.items()})))
    definitions = [replace(PSNR, **fields) for fields in drawn]
    footnotes = Footnotes.of(definitions)
    assert set(footnotes.marks) == {terms(one) for one in definitions}
    assert len(set(footnotes.marks.values())) == len(footnotes.marks)
    assert {mark for marks in footnotes.marks.values() for mark in marks} == {mark for mark, _ in footnotes.words}
    words = dict(footnotes.words)
    for told, marks in footnotes.marks.items():
        said = "; ".join([footnotes.shared, *(words[mark] for mark in marks)])
        if " as A" not in said and " as B" not in said:
            assert set(told.split("; ")) == set(said.split("; ")) - {""}


def test_real_scans_have_no_column_of_dashes() -> None:
    subjects = {
        MADE: [score(metric=metric) for metric in ("kid", "kid/equal n", "mae")],
        "floor: untrained model": [score(metric=metric) for metric in ("kid", "mae")],
        "floor: real against real": [score(metric="kid/equal n")],
    }
    lines = Scores(kind="run", subjects=subjects).text().splitlines()
    assert not any(" - " in line for line in lines if line.startswith("  "))
    assert sum("[27.1, 28.8]" in line for line in lines) == 3


@pytest.mark.parametrize("full", [True, False])
def test_text_names_every_score_in_which_a_floor_is_not_beaten(full: bool) -> None:
    def of(value: float, *metrics: str, **changes: object) -> list[Score]:
        return [score(value, None, metric=metric, better="lower", **changes) for metric in metrics]

    planes = ("kid/axial", "kid/coronal", "kid/2.5d")
    made = [*of(2, *planes, "kid/volume", "mmd/axial", "mae/lung", "tie"), *of(1, "mmd/2.5d", "mae")]
    blank = [*of(1, *planes, "kid/volume", "mmd/axial", "mae/lung"), *of(2, "tie", "mmd/2.5d", "mae")]
    other = of(9, *planes, "kid/volume", "mae")
    again = [of(value, "mae", convention="x2ct2019")[0] for value in (2, 1)]
    real = of(0, *planes, "mae")
    subjects = {
        MADE: [*made, again[0]], "floor: blank": [*blank, again[1]], "floor: other": other,
        "floor: real against real": real,
    }  # fmt: skip
    found = Scores(kind="run", subjects=subjects)
    sentence = '"made" is no better than "floor: blank" in KID/2.5d, KID/volume, MMD/axial, MAE/lung, tie.'
    assert found.unbeaten() == [sentence]
    assert sentence in " ".join(found.text(full=full).split())
    assert Scores.from_json(found.to_json()).unbeaten() == [sentence]


def test_text_keeps_to_the_width_of_a_terminal_whatever_the_number_of_subjects() -> None:
    definition = replace(PSNR, reduction="mean over voxels, " * 20, convention="standard")
    subjects = {
        f"floor: the mean of training number {number}": [
            Score(value=number / 7, interval=(0.0, 1.0), definition=replace(definition, metric=f"mae/tissue_{metric}"))
            for metric in range(9)
        ]
        for number in range(7)
    }
    text = Scores(kind="pairs", subjects=subjects, notes=["a long note " * 30]).text()
    assert max(map(len, text.splitlines())) <= WIDTH
    for number in range(7):
        assert f"number {number}" in text
    assert text.count("mae/tissue_8") == text.count("mae/tissue_0")


def test_a_block_of_text_has_no_row_that_none_of_its_subjects_fills() -> None:
    lines = side_by_side().text().splitlines()
    assert not any(line.split()[1:-1] == ["-"] for line in lines if line.startswith("  "))
    wide = {f"floor: {'x' * 60}{number}": [score(metric=f"metric_{number}")] for number in range(3)}
    text = Scores(kind="pairs", subjects=wide).text()
    assert [text.count(f"metric_{number}") for number in range(3)] == [1, 1, 1]


def test_scores_without_subjects_are_empty_text() -> None:
    assert Scores(kind="sets", subjects={}).text() == ""


@settings(max_examples=8)
@given(
    subjects=st.dictionaries(
        words, st.lists(scores, max_size=3, unique_by=lambda one: (one.definition.metric, one.definition.convention))
    ),
    notes=st.lists(words, max_size=2),
    facts=st.dictionaries(words, words, max_size=2),
)
def test_scores_return_from_json_as_they_were(
    subjects: dict[str, list[Score]], notes: list[str], facts: dict[str, str]
) -> None:
    text = Scores(kind="sets", subjects=subjects, notes=notes, facts=facts).to_json()
    assert json.loads(text, parse_constant=refuse)["schema"] == 1
    again = Scores.from_json(text)
    assert again.to_json() == text
    assert list(again.subjects) == list(subjects)
    assert repr([list(some) for some in again.subjects.values()]) == repr(list(subjects.values()))


def test_scores_return_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "scores.json"
    side_by_side().write(path)
    side_by_side().write(path)
    again = Scores.read(path)
    assert again.text() == side_by_side().text()
    assert [item.name for item in path.parent.iterdir()] == ["scores.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[]", "schema"),
        ("[" * 100_000, "not JSON"),
        ("{}", "schema"),
        ('{"schema": 1, "kind": "pairs", "subjects": {}, "notes": [], "facts": {"x": NaN}}', "NaN"),
        ('{"schema": 1}', "kind"),
        ('{"schema": 1, "kind": "pairs", "subjects": [], "notes": [], "facts": {}}', "subjects"),
        ('{"schema": 1, "kind": "pairs", "subjects": {"made": [3]}, "notes": [], "facts": {}}', "definition"),
        ('{"schema": 1, "kind": "pairs", "subjects": {}, "notes": [1], "facts": {}}', "notes"),
        ('{"schema": 1, "kind": "pairs", "subjects": {}, "notes": [], "facts": {"n": 1}}', "facts"),
        ('{"schema": 2, "kind": "pairs"}', "schema 2; this version of tomogen reads 1"),
    ],
)
def test_damaged_scores_are_refused_with_the_file_and_a_fix(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(DataInvalid, match=said) as refused:
        Scores.read(path)
    assert refused.value.at == str(path)
    assert refused.value.fix


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    text = side_by_side().to_json().rstrip()
    for end in range(0, len(text), 97):
        with pytest.raises(DataInvalid):
            Scores.from_json(text[:end])


def test_bytes_that_are_no_text_and_files_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataInvalid, match="UTF-8"):
        Scores.read(tmp_path / "scores.json")
    with pytest.raises(InputMissing):
        Scores.read(tmp_path / "none.json")
