"""The pages about runs and scores, as a browser reads them."""

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tiny
from tomogen import formats
from tomogen.errors import DataInvalid, UsageFault
from tomogen.evaluation.definition import Definition
from tomogen.evaluation.evidence import Evidence, Shown
from tomogen.evaluation.score import Score
from tomogen.evaluation.scores import Scores
from tomogen.evaluation.subjects import EQUAL, REAL
from tomogen.evaluation.words import terms, title
from tomogen.reporting import document, montage, plots, tables
from tomogen.reporting.page import report
from tomogen.reporting.scores_page import scores_page
from tomogen.reporting.words import shareable
from tomogen.run import Run
from tomogen.volume import Volume, affine_of

VOID = {"meta", "img", "br", "wbr", "link", "input", "col", "hr"}


class Page(HTMLParser):
    """A page: its tags in order, its text, and whether every tag that opens is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        """What can be read, spaces single."""
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of each such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def score(metric: str = "mae", value: float = 12.5, **fields: object) -> Score:
    """A score; fields of a score or of its definition."""
    mine = {name: fields.pop(name) for name in ("interval", "cases", "note") if name in fields}
    words = {"unit": "HU", "better": "lower", "n": (2,), "reduction": "mean over voxels"} | fields
    return Score(**({"value": value, "interval": None} | mine), definition=Definition(metric=metric, **words))  # type: ignore[arg-type]


def scores(subjects: Mapping[str, Sequence[Score]], **fields: object) -> Scores:
    return Scores(kind=str(fields.pop("kind", "pairs")), subjects=subjects, **fields)  # type: ignore[arg-type]


def written(found: Scores, out: Path, evidence: Evidence | None = None, **options: object) -> Page:
    return Page(scores_page(found, evidence or Evidence(), out, **({"title": "Scores"} | options)))  # type: ignore[arg-type]


def volume(value: float = 0, shape: tuple[int, int, int] = (6, 8, 10), seed: int = 0) -> Volume:
    hu = np.random.default_rng(seed).integers(-1000, 1000, shape) + value
    return Volume(hu.astype(np.float32), affine_of((3.0, 2.0, 2.0)))


def rich() -> tuple[Scores, Evidence]:
    """Everything a page can hold."""
    cases = {f"case-{number}": 10.0 + number for number in range(5)}
    made = [
        score(cases=cases, interval=(11.0, 14.0)),
        score("psnr", 33.25, unit="dB", better="higher", range=(-1024, 3000), parameters={"peak": 4024}),
        score("mae/lung", 55.5, mask="body", note="1 of 2 scans have no value"),
        score("mae/bone", 77.75, mask="body"),
        score("psnr", 38.5, convention="x2ct2019", unit="dB", better="higher", departs="Takes 4095 as the peak."),
        *(
            score(
                f"cs_by_scale/{k}", 0.9 + k / 100, convention="wang2003", unit="", parameters={"taps": 11, "scale": k}
            )
            for k in (1, 2, 3)
        ),
    ]
    floor = [score(value=20.25, cases=cases), score("mae/lung", 44.5, mask="body")]
    found = scores(
        {"made": made, "floor: blurred truth": floor},
        notes=["Two patients tell little."],
        facts={"truth": "real-scans", "made": "predictions", "scans": "2", "seconds": "4.2"},
    )
    evidence = Evidence(
        pairs=[Shown("case-0", volume(), volume(50), volume(-20))],
        real=[volume()],
        made=[volume(seed=1), volume(seed=2)],
        edges=np.arange(-1000.0, 1001.0, 2.0),
        histograms={"truth": np.arange(1000), "made": np.arange(1000)[::-1].copy()},
        profiles={"real": np.array([-1.0, -0.5]), "made": np.array([2.0, math.nan])},
    )
    return found, evidence


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of everything."""
    found, evidence = rich()
    return written(found, tmp_path_factory.mktemp("page"), evidence, commands=["tomogen evaluate pairs a b"])


def test_a_page_of_everything_is_well_formed_and_needs_nothing_else(page: Page) -> None:
    assert page.all("script") == page.all("link") == page.all("iframe") == []
    assert all(str(image["src"]).startswith("data:image/") for image in page.all("img"))
    assert all(str(link["href"]).startswith("#") for link in page.all("a"))
    assert re.search(r"url\(|@import|https?:|srcset", page.source) is None
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {str(link["href"])[1:] for link in page.all("a")} <= targets
    assert len(page.all("img")) > 20
    assert "$ tomogen evaluate pairs a b" in page.text


def test_pictures_have_words_and_tables_have_heads(page: Page) -> None:
    assert all(image["alt"] for image in page.all("img"))
    assert all(head.get("scope") for head in page.all("th"))
    assert len(page.all("figcaption")) == len(page.all("figure")) > 5
    assert page.all("html") == [{"lang": "en"}]


def test_every_score_stands_there_with_its_definition(page: Page) -> None:
    found, text = rich()[0], page.text
    for listed in found.subjects.values():
        for one in listed:
            value, ends = tables.figures(one)
            assert value in text
            assert ends in text
            standard = one.definition.convention == "standard"
            assert (title(one.definition.metric).split("/")[-1] if standard else one.definition.convention) in text
            for part in terms(one.definition).split("; "):
                assert part.lower().removesuffix(", scale 1") in text.lower() or "scale" in part
    assert "1 of 2 scans have no value" in text
    assert "Two patients tell little." in text
    assert "Takes 4095 as the peak" in text
    assert all(fact in text for fact in found.facts.values())


def test_numbers_of_single_scales_share_a_row_and_none_is_lost(page: Page) -> None:
    assert "1: 0.91 2: 0.92 3: 0.93" in page.text
    assert page.text.count("cs_by_scale") == 1


def test_the_best_is_told_by_a_word_and_only_where_better_has_a_direction(tmp_path: Path) -> None:
    subjects = {
        "a": [score(value=1), score("psnr", 30, better="higher"), score("bias", 1, better=""), score("tie", 5)],
        "b": [score(value=2), score("psnr", 40, better="higher"), score("bias", 2, better=""), score("tie", 5)],
    }
    table = tables.main_table(tables.whole_rows(scores(subjects)), "")
    assert [[cell.best for cell in line.cells] for line in table.groups[0].lines] == [
        [True, False],
        [False, True],
        [False, False],
        [False, False],
    ]
    assert written(scores(subjects), tmp_path).text.count("best") == 2


def test_real_scans_are_never_called_the_best(tmp_path: Path) -> None:
    subjects = {"made": [score("kid/axial/equal n", 0.5)], REAL: [score("kid/axial/equal n", 0.01)]}
    page = written(scores(subjects, kind="sets"), tmp_path)
    assert "best" not in page.text
    assert "Made and real at equal n" in page.text
    assert "patients resampled" not in page.text
    assert "not an interval over patients" in page.text
    subjects = {"made": [score("coherence", 0.5)], REAL: [score("coherence", 0.01)]}
    assert scores(subjects).unbeaten() == []


def test_a_table_of_sets_has_few_definitions_and_no_column_of_dashes(tmp_path: Path) -> None:
    def of(ending: str, **words: object) -> list[Score]:
        return [
            score(f"{metric}/{plane}{ending}", axis=plane, parameters=own, reduction="a row a slice; mean", **words)
            for plane in ("axial", "coronal", "sagittal")
            for metric, own in (
                ("fid", {}),
                ("kid", {"kernel": "cubic"}),
                ("precision", {"k": 4}),
                ("recall", {"k": 4}),
            )
        ]

    alike = score("diversity/ms_ssim", reduction="of every two")
    made = [*of("", n=(9, 9)), *of(EQUAL, n=(4, 4)), alike]
    subjects = {"made": made, REAL: [*of(EQUAL, n=(4, 4)), alike], "floor: untrained model": of("", n=(9, 9))}
    found = scores(subjects, kind="run")
    table = tables.parts_table(tables.part_rows(found), "")
    assert table.shared == "standard; HU as they are; all voxels; a row a slice; mean; n = 9 real, 9 made"
    assert table.footnotes == [
        ("A", "axial slices"), ("B", "coronal slices"), ("C", "sagittal slices"), ("1", "kernel cubic"), ("2", "k 4"),
    ]  # fmt: skip
    assert [list(line.footnotes) for line in table.groups[2].lines] == [["A", "2"], ["B", "2"], ["C", "2"]]
    page = written(found, tmp_path)
    assert not any(word.strip() == "–" for word in page.words)
    assert "Made and real, each by itself" in page.text


def test_a_floor_that_is_not_beaten_is_said_first(tmp_path: Path) -> None:
    subjects = {"made": [score(value=30)], "floor: input": [score(value=20)], "floor: mean": [score(value=40)]}
    page = written(scores(subjects), tmp_path)
    assert '"made" is no better than "floor: input" in MAE.' in page.text
    assert 'than "floor: mean"' not in page.text


@pytest.mark.parametrize("interval", [None, (math.nan, math.nan), (-math.inf, math.inf), (0.0, 0.0)])
def test_numbers_of_all_kinds_make_a_page(interval: tuple[float, float] | None, tmp_path: Path) -> None:
    values = [math.nan, math.inf, -math.inf, 0.0, 1e-30, -1e300]
    made = [
        score(f"psnr_{number}", value, unit="dB", interval=interval, cases={"x": value, "y": 1.0, "z": math.nan})
        for number, value in enumerate(values)
    ]
    others = [replace(one, definition=replace(one.definition, convention="peaks")) for one in made]
    page = written(scores({"made": [*made, *others], "floor: input": made}), tmp_path)
    assert "nan" not in page.text
    assert page.text.count("no value") == 3
    assert page.text.count("−∞") >= 3


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(),
        Evidence(edges=np.array([0.0, 1.0]), histograms={"real": np.array([0])}),
        Evidence(profiles={"real": np.array([math.nan])}),
        Evidence(profiles={"real": np.array([])}),
        Evidence(real=[volume(shape=(1, 4, 5))], made=[volume(shape=(3, 4, 5))]),
    ],
)
@pytest.mark.parametrize("subjects", [{}, {"made": []}, {"made": [score()]}])
def test_what_is_missing_is_left_out(evidence: Evidence, subjects: dict[str, list[Score]], tmp_path: Path) -> None:
    page = written(scores(subjects), tmp_path, evidence)
    assert "Inter-slice" not in page.text
    assert "HU histograms" not in page.text


def test_names_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    bad = "<script>alert('1')</script> & \"x\""
    named = score(bad, note=bad, reduction=bad, cases={bad: 1.0, "b": 2.0})
    convention = score(bad, convention=bad, departs=bad)
    evidence = Evidence(
        pairs=[Shown(bad, volume(), volume())], histograms={bad: np.array([1])}, edges=np.array([0, 1.0])
    )
    found = scores({bad: [named, convention]}, notes=[bad], facts={bad: bad})
    page = written(found, tmp_path, evidence, title=bad, commands=[bad])
    assert page.all("script") == []
    assert page.text.count("alert('1')") > 8


def test_unlike_definitions_raise_and_leave_nothing(tmp_path: Path) -> None:
    found = scores({"made": [score(mask="body")], "floor: input": [score(mask="none")]})
    with pytest.raises(DataInvalid, match="mask: body against none"):
        scores_page(found, Evidence(), tmp_path / "out", title="Scores")
    assert not (tmp_path / "out").exists()


def test_a_page_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scores({"made": [score()]})
    before = scores_page(found, Evidence(), tmp_path, title="Before").read_bytes()

    def full(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text.encode()[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        scores_page(found, Evidence(), tmp_path, title="After")
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    assert (tmp_path / "index.html").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tomogen report /home/jane/ct/run", "tomogen report run"),
        ("--out=/home/jane/ct/run/ x", "--out=run x"),
        ("at '/home/jane doe/my scans/a b' and on", "at 'a b' and on"),
        (r"C:\Users\jane\scans", "scans"),
        ("~/scans/a.nii.gz, then", "a.nii.gz, then"),
        ("made/a ../b mae/lung HU/px 1 / n, n//2", "made/a ../b mae/lung HU/px 1 / n, n//2"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_paths_are_cut_to_their_last_name(text: str, shown: str) -> None:
    assert shareable(text) == shown


def test_no_folder_of_anybody_is_on_the_page(tmp_path: Path) -> None:
    found = scores({"made": [score()]}, notes=["read from /home/jane/ct"], facts={"truth": "/home/jane/truth"})
    page = written(found, tmp_path, commands=["tomogen evaluate pairs /home/jane/truth made"])
    assert "jane" not in page.source
    assert "truth" in page.text


def decoded(picture: montage.Picture | None) -> Image.Image:
    assert picture is not None
    return Image.open(io.BytesIO(base64.b64decode(picture.source.partition(",")[2])))


@pytest.mark.parametrize("shift", [-400.0, -50.0, 0.0, 50.0, 125.0, 400.0, math.nan])
def test_a_difference_has_the_colour_that_the_bar_gives_it(shift: float) -> None:
    truth = volume(shape=(8, 16, 16))
    figure = montage.compared(Shown("x", truth, replace(truth, hu=truth.hu + np.float32(shift))))
    bars = {
        float(scale.ends[2].removesuffix(" HU")): np.asarray(decoded(scale.bar).convert("RGB"))
        for scale in figure.scales
    }
    assert len(figure.pictures) == len(figure.rows) == len(montage.VIEWS)
    for view, row in zip(montage.VIEWS, figure.pictures, strict=True):
        shown = np.asarray(decoded(row[-1]).convert("RGB"))
        bar = bars[view.difference][0]
        place = round((min(max(shift / view.difference, -1), 1) + 1) / 2 * 254) if math.isfinite(shift) else None
        assert (shown == ([128, 128, 128] if place is None else bar[place])).all()


def test_planes_lie_as_radiologists_see_them() -> None:
    hu = np.full((9, 11, 13), -1000, dtype=np.float32)
    hu[7:, 2:9, 2:11] = 400  # superior
    figure = montage.side_by_side("", [Volume(hu, affine_of((2.0, 2.0, 2.0)))], ["x"], "")
    coronal = np.asarray(decoded(figure.pictures[1][0]))
    assert coronal[: len(coronal) // 3].mean() > 3 * coronal[len(coronal) // 2 :].mean()
    hu = np.full((9, 11, 13), -1000, dtype=np.float32)
    hu[:, :4, :3] = 400  # anterior, right
    figure = montage.side_by_side("", [Volume(hu, affine_of((2.0, 2.0, 2.0))).reorient("IAR")], ["x"], "")
    axial = np.asarray(decoded(figure.pictures[0][0]))
    assert axial[20, 20] == 255
    assert axial[-20, -20] == axial[-20, 20] == axial[20, -20] == 0


def test_pictures_keep_true_proportions() -> None:
    scan = Volume(np.zeros((10, 20, 40), dtype=np.int16), affine_of((8.0, 2.0, 2.0)))
    sizes = [decoded(row[0]).size for row in montage.side_by_side("", [scan], ["x"], "").pictures[:3]]
    assert sizes == [(256, 128), (256, 256), (128, 256)]


def test_unlike_shapes_have_no_difference() -> None:
    with pytest.raises(ValueError, match="unlike shapes"):
        montage.compared(Shown("x", volume(), volume(shape=(6, 8, 9))))


def test_coarser_bins_hold_the_same_counts() -> None:
    edges, counts = plots.coarser(np.arange(1001.0), {"real": np.arange(1000)})
    assert len(edges) - 1 == len(counts["real"]) <= plots.BINS
    assert counts["real"].sum() == np.arange(1000).sum()
    assert counts["real"][0] == np.arange(7).sum()
    assert (edges[0], edges[1], edges[-1]) == (0, 7, 1000)


def test_one_number_under_many_definitions_is_drawn_with_the_standard_among_them(page: Page) -> None:
    assert [name for name, _ in tables.spread(rich()[0], "psnr")] == ["standard", "x2ct2019"]
    assert "from 33.25 to 38.5" in page.text


def test_a_run_is_reported_with_the_scores_it_has(tmp_path: Path) -> None:
    run = tiny.trained(tmp_path, "run").run
    page = Page(report(run, data=tmp_path / "cases"))
    assert "What it learnt from" in page.text
    assert "Before you trust" not in page.text
    rich()[0].write(run / "report" / "scores.json")
    with pytest.raises(UsageFault, match="there already"):
        report(run)
    page = Page(report(run, overwrite=True))
    assert "33.25" in page.text
    assert "Two patients tell little." in page.text
    assert str(tmp_path) not in page.source
    page = written(scores({"made": [score()]}, kind="run"), tmp_path / "scored", run=Run.open(run))
    assert "Loss terms over training steps" in page.text


def test_a_report_of_a_run_shows_all_that_its_evaluation_drew(tmp_path: Path) -> None:
    run = tiny.trained(tmp_path, "run").run
    found, evidence = rich()
    typed = ["tomogen evaluate run /home/jane/run cases"]
    before = written(found, run / "report", evidence, run=Run.open(run), commands=typed)
    found.write(run / "report" / "scores.json")
    for out in (None, tmp_path / "other"):
        after = Page(report(run, out, overwrite=True))
        assert {image["src"] for image in before.all("img")} <= {image["src"] for image in after.all("img")}
        assert all(heading in after.text for heading in ("HU histograms", "Inter-slice coherence", "Case case-0"))
        assert "$ tomogen evaluate run run cases" in after.text
    assert "jane" not in (run / "report" / "figures.json").read_text(encoding="utf-8")


def test_figures_of_other_scores_are_not_shown_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    run = tiny.trained(tmp_path, "run").run
    found, evidence = rich()
    written(found, run / "report", evidence, run=Run.open(run))
    replace(found, notes=("evaluated again",)).write(run / "report" / "scores.json")
    assert "HU histograms" not in Page(report(run, overwrite=True)).text
    for damaged in (b"", b"[]", b'{"scores": "x", "sections": [], "schema": 2}', b"\xff"):
        (run / "report" / "figures.json").write_bytes(damaged)
        with pytest.raises(DataInvalid, match="figures") as refused:
            report(run, overwrite=True)
        assert refused.value.fix


def test_scores_of_earlier_weights_are_said_to_be_so(tmp_path: Path) -> None:
    run = tiny.trained(tmp_path, "run").run
    for scored, told in ((Run.open(run).identifier, False), ("0123456789abcdef", True)):
        scores({"made": [score()]}, kind="run", facts={"run": scored}).write(run / "report" / "scores.json")
        text = Page(report(run, overwrite=True)).text
        assert (f"of earlier weights, {scored}" in text) is told


@pytest.mark.parametrize(
    ("metric", "written"),
    [
        ("ms_ssim", "MS-SSIM"),
        ("hu_histogram", "HU histogram"),
        ("mae/soft_tissue", "MAE/soft tissue"),
        ("fid_above_floor/2.5d", "FID above floor/2.5d"),
    ],
)
def test_metrics_are_named_as_people_write_them(metric: str, written: str) -> None:
    assert title(metric) == written


def test_four_cases_of_real_scans_stay_below_three_megabytes(ctdata: Path, tmp_path: Path) -> None:
    truth = formats.read(ctdata / "pairs/A0001/series3/ct.nii.gz")
    made = formats.read(ctdata / "pairs/A0001/series2/ct.nii.gz")
    pairs = [Shown(f"case-{number}", truth, made) for number in range(5)]
    page = scores_page(rich()[0], Evidence(pairs=pairs), tmp_path, title="Scores")
    assert 1e5 < page.stat().st_size < 3e6
    assert "case-3" in Page(page).text
    assert "case-4" not in Page(page).text
