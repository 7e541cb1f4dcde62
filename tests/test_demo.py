"""The demo: the whole way in one call, and what it promises of its samples."""

from pathlib import Path

import pytest

import tomogen
from tomogen.evaluation.scores import Scores


@pytest.mark.slow
def test_the_demos_samples_are_far_nearer_to_unseen_phantoms_than_before_training(tmp_path: Path) -> None:
    made = tomogen.demo(tmp_path / "demo")
    assert made.kid <= made.kid_untrained / 2
    scores = Scores.read(made.run / "report" / "scores.json")
    assert scores.get("made", "kid/volume").value == made.kid
    assert scores.facts["split"] == "test"
    assert "KID" in made.report.read_text()
    assert sorted(path.name for path in made.samples.glob("*.nii.gz")) == [
        f"sample-00000{n}.nii.gz" for n in range(1, 5)
    ]
    assert (tmp_path / "demo" / "demo.log").read_text().count("$ tomogen ") == len(made.commands) == 6
