"""Every file of `ctdata/hostile` gets the verdict of `hostile.csv`, written from headers and provenance beforehand.

A row stands for a file, or for all files under a folder that have no row of their own. Where several reasons are
true of a file (a picture is 2D and has no HU) the row gives them all, joined by `|`; so does a verdict that is a
matter of taste.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tomogen.cases.scan import Finding, scan

TABLE = Path(__file__).with_name("hostile.csv")


@pytest.fixture(scope="module")
def hostile(ctdata: Path) -> Path:
    return ctdata / "hostile"


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def findings(hostile: Path) -> list[Finding]:
    return scan(hostile, deep=True)


def row_of(file: Path, hostile: Path, expected: dict[str, dict[str, str]]) -> dict[str, str]:
    """The row of a file, or of the nearest folder above it."""
    inside = file.relative_to(hostile)
    for place in (inside, *inside.parents):
        if place.as_posix() in expected:
            return expected[place.as_posix()]
    raise AssertionError(f"no row covers {inside}")


def test_every_file_has_a_row_and_every_row_a_file(hostile: Path, expected: dict[str, dict[str, str]]) -> None:
    for file in hostile.rglob("*"):
        if file.is_file():
            row_of(file, hostile, expected)
    assert not [path for path in expected if not (hostile / path).exists()]


def test_every_file_belongs_to_exactly_one_finding(hostile: Path, findings: list[Finding]) -> None:
    found = sorted(file for finding in findings for file in finding.files)
    assert found == sorted(file for file in hostile.rglob("*") if file.is_file())


def test_every_file_gets_the_verdict_and_the_reason_of_the_table(
    hostile: Path, expected: dict[str, dict[str, str]], findings: list[Finding]
) -> None:
    wrong = []
    for finding in findings:
        for file in finding.files:
            row = row_of(file, hostile, expected)
            right = finding.verdict in row["verdict"].split("|")
            if finding.verdict == "refuse":
                right &= finding.reason is not None and finding.reason.value in row["reason"].split("|")
            if not right:
                wrong.append((str(file.relative_to(hostile)), row["verdict"], row["reason"], finding))
    assert not wrong


def test_no_reader_meets_what_it_did_not_foresee(findings: list[Finding]) -> None:
    assert not [finding for finding in findings if "reader failed" in finding.detail]


def test_every_scan_that_is_used_can_be_read_in_the_shape_it_was_found_in(findings: list[Finding]) -> None:
    used = [finding for finding in findings if finding.verdict == "use"]
    assert used
    for finding in used:
        volume = finding.read()
        assert volume.shape == finding.shape
        assert volume.spacing == pytest.approx(finding.spacing)


def test_refusals_say_what_is_wrong(findings: list[Finding]) -> None:
    for finding in findings:
        assert (finding.verdict == "use") == (finding.reason is None)
        assert finding.verdict == "use" or finding.detail


def test_headers_alone_never_refuse_what_voxels_then_allow(hostile: Path, findings: list[Finding]) -> None:
    used = {file for finding in findings if finding.verdict == "use" for file in finding.files}
    shallow = {file for finding in scan(hostile) if finding.verdict == "use" for file in finding.files}
    assert used <= shallow


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory by file is read from /proc")
def test_no_file_takes_more_memory_than_a_small_scan_does(hostile: Path, findings: list[Finding]) -> None:
    # The largest honest file here unpacks to 12 MB. Four times what the absurd ones declare would be terabytes.
    code = """if True:
        import json, sys
        from pathlib import Path
        from tomogen.cases.scan import scan
        def kilobytes(name):
            return int(next(s for s in open("/proc/self/status") if s.startswith(name)).split()[1])
        paths = json.load(sys.stdin)
        scan(paths[0], deep=True), scan(paths[-1], deep=True)
        found = {}
        for path in paths:
            open("/proc/self/clear_refs", "w").write("5")
            before = kilobytes("VmRSS")
            scan(path, deep=True)
            found[path] = kilobytes("VmHWM") - before
        print(json.dumps(found))
    """
    paths = sorted({str(finding.path) for finding in findings if finding.path != hostile})
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(paths),
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    taken = json.loads(done.stdout)
    assert len(taken) == len(paths)
    assert not {path: kb for path, kb in taken.items() if kb > 64 * 1024}


def test_doctor_says_the_same_as_json_and_exits_with_the_verdict(hostile: Path, findings: list[Finding]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tomogen", "doctor", str(hostile), "--json", "-q"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    said = {(scan["path"], tuple(scan["files"]), scan["verdict"], scan["reason"]) for scan in told["scans"]}
    meant = {
        (str(one.path), tuple(map(str, one.files)), one.verdict, None if one.reason is None else one.reason.value)
        for one in findings
    }
    assert said == meant
    assert told["files"] == sum(len(one.files) for one in findings)
