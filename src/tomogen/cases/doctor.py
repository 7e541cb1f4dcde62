"""What is wrong with the machine, or with a folder of scans, and what would put it right."""

import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tomogen._version import __version__
from tomogen.cases.scan import Finding, scan
from tomogen.errors import DataInvalid, DependencyMissing, Reason, TomogenError, UsageFault
from tomogen.formats import DEFAULT, ReadOptions
from tomogen.progress import Progress, silent

if TYPE_CHECKING:
    from tomogen.cases.pairs.pair import Pair

STRANGERS = frozenset(
    {
        Reason.NOT_CT_FILE, Reason.NOT_IMAGE, Reason.MODALITY, Reason.MASK, Reason.LOCALIZER, Reason.DERIVED,
        Reason.DIMENSIONS,
    }
)  # fmt: skip
"""Reasons that are no fault of the data: files that are something else than a CT volume, and say so."""

LIBRARIES = (
    "torch", "lightning-fabric", "numpy", "scipy", "pydicom", "nibabel", "SimpleITK", "click", "pydantic", "rich",
    "pillow", "matplotlib", "jinja2", "safetensors",
)  # fmt: skip
LEAST_PYTHON = (3, 11)
LEAST_MEMORY = 2 * 2**30
"""Bytes: torch takes half a GB, `wgan3d_tiny` and two loaders the rest."""
LEAST_DISK = 2**30
"""Bytes: a run with its checkpoints, and a small folder of cases."""


@dataclass(frozen=True)
class Check:
    """One thing about the machine."""

    name: str
    found: str
    ok: bool
    fix: str | None = None


@dataclass(frozen=True)
class Scan:
    """One series or file of a folder: a finding without what identifies anybody."""

    path: str
    files: tuple[str, ...]
    format: str
    verdict: Literal["use", "refuse"]
    reason: str | None
    detail: str
    fix: str | None
    warnings: tuple[str, ...]
    shape: tuple[int, int, int] | None
    """Voxels along (depth, height, width)."""
    spacing: tuple[float, float, float] | None
    """mm along (depth, height, width)."""
    modality: str
    fault: bool
    """Whether it is a CT, or should be one, that cannot be used; files that are something else are no fault."""


@dataclass(frozen=True)
class PairedScans:
    """Two scans that are, or should be, a pair."""

    path: str
    """The folder that holds both; of a scan without partner, that scan."""
    verdict: Literal["use", "refuse"]
    source: str | None = None
    target: str | None = None
    reason: str | None = None
    detail: str = ""
    fix: str | None = None
    warnings: tuple[str, ...] = ()
    offset: tuple[float, float, float] | None = None
    """mm along LPS x, y, z that the body moved from the source to the target."""
    turn: float | None = None
    """Degrees that it turned."""


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at: the machine, or what lies in folders."""

    healthy: bool
    """No check failed, no scan is at fault, and, of folders, there is a scan to use."""
    checks: tuple[Check, ...] = ()
    scans: tuple[Scan, ...] = ()
    files: int = 0
    used: int = 0
    """Scans that would be used."""
    refused: tuple[tuple[str, int], ...] = ()
    """Reasons with the number of findings refused for them, the commonest first."""
    pairs: tuple[PairedScans, ...] = ()
    """Where pairs were asked for: each, and what lacks a partner."""


def doctor(
    paths: str | Path | Sequence[str | Path] = (),
    *,
    pairs: str | Path | None = None,
    options: ReadOptions = DEFAULT,
    progress: Progress = silent,
) -> Diagnosis:
    """Diagnose the machine, or, with paths, everything under them: every voxel is read, as `prepare` would.

    With `pairs` (a layout such as `CT1,CT2`, or a CSV, as `prepare` takes it) scans are looked at two by two: whether
    they lie on one grid, how far the bodies are apart in mm, whether the contrast is where it belongs.

    Raises:
        InputMissing: a path that is not there, or, with `pairs`, no scan lies where the layout looks.
        UsageFault: `pairs` is no layout.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    if pairs is not None:
        if not paths:
            raise UsageFault("--pairs looks into folders, and none is named", fix="tomogen doctor FOLDER --pairs")
        return _of_pairs([Path(path) for path in paths], pairs, options, progress)
    if not paths:
        checks = tuple(_machine())
        return Diagnosis(all(check.ok for check in checks), checks)
    scans = tuple(_scan_of(finding) for finding in scan(paths, options, progress, deep=True))
    used = sum(one.verdict == "use" for one in scans)
    return Diagnosis(
        healthy=used > 0 and not any(one.fault for one in scans),
        scans=scans,
        files=sum(len(one.files) for one in scans),
        used=used,
        refused=tuple(Counter(one.reason for one in scans if one.reason is not None).most_common()),
    )


def _of_pairs(paths: Sequence[Path], layout: str | Path, options: ReadOptions, progress: Progress) -> Diagnosis:
    from tomogen.cases.pairs.layout import pair_up
    from tomogen.cases.work import quiet

    with quiet():
        findings = scan(paths, options, progress)
        paired = pair_up(findings, layout, paths)
        found: list[PairedScans] = []
        for number, pair in enumerate(paired.pairs):
            progress(number, len(paired.pairs), "comparing pairs")
            found.append(_pair_of(pair))
    progress(len(found), len(found), "done")
    found += [
        PairedScans(str(one.path), "refuse", reason=str(one.reason), detail=one.detail, fix=one.fix)
        for one in paired.broken
    ]
    used = sum(pair.verdict == "use" for pair in found)
    return Diagnosis(
        healthy=used == len(found) > 0,
        scans=tuple(_scan_of(finding) for finding in paired.others),
        files=sum(len(finding.files) for finding in findings),
        used=2 * used,
        refused=tuple(Counter(pair.reason for pair in found if pair.reason is not None).most_common()),
        pairs=tuple(found),
    )


def _pair_of(pair: "Pair") -> PairedScans:
    """What comparing the two scans of a pair tells."""
    path, source, target = (str(one.path) for one in (pair, pair.source, pair.target))
    try:
        halves = pair.halves()
    except TomogenError as error:
        reason = str(error.reason) if isinstance(error, DataInvalid) else "unreadable"
        return PairedScans(path, "refuse", source, target, reason, error.what, error.fix, pair.warnings)
    except Exception as error:  # the text of a foreign error may quote a header
        what = f"cannot be compared: {type(error).__name__}"
        return PairedScans(path, "refuse", source, target, "unreadable", what)
    x, y, z = (round(mm, 1) + 0.0 for mm in halves.motion.shift)  # no -0.0
    return PairedScans(
        path, "use", source, target, warnings=(*pair.warnings, *halves.warnings), offset=(x, y, z),
        turn=round(halves.motion.turn, 1),
    )  # fmt: skip


def _scan_of(finding: Finding) -> Scan:
    return Scan(
        path=str(finding.path),
        files=tuple(map(str, finding.files)),
        format=finding.format,
        verdict=finding.verdict,
        reason=None if finding.reason is None else finding.reason.value,
        detail=finding.detail,
        fix=finding.fix,
        warnings=finding.warnings,
        shape=finding.shape,
        spacing=finding.spacing,
        modality=finding.modality,
        # a picture is something else than a CT, unless somebody says which HU its grey values are
        fault=finding.verdict == "refuse" and finding.reason not in STRANGERS and finding.format != "pictures",
    )


def _machine() -> Iterator[Check]:
    yield _python()
    yield Check("tomogen", __version__, ok=True)
    yield from (_library(name) for name in LIBRARIES)
    yield _torch()
    yield from _codecs()
    yield _processors()
    yield _memory()
    yield from (_disk(*place) for place in (("working folder", Path.cwd()), ("temporary folder", _temporary())))


def _python() -> Check:
    wanted = ".".join(map(str, LEAST_PYTHON))
    return Check(
        "python",
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        sys.version_info >= LEAST_PYTHON,
        f"install Python {wanted} or later",
    )


def _library(name: str) -> Check:
    try:
        return Check(name, metadata.version(name), ok=True)
    except metadata.PackageNotFoundError:
        return Check(name, "not installed", ok=False, fix=f"pip install {name}")


def _torch() -> Check:
    """Whether the build of torch and the graphics processor belong together."""
    try:
        import torch

        from tomogen import device
    except (ImportError, OSError) as error:
        return Check("device", f"torch does not import ({type(error).__name__})", ok=False, fix="pip install torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(f"{one.name} ({one.total_memory / 2**30:.0f} GB)" for one in names)
        return Check("device", f"CUDA {torch.version.cuda}: {found}", ok=True)
    if torch.backends.mps.is_available():
        return Check("device", "Metal (MPS)", ok=True)
    if device.driver_found():
        try:
            device.resolved("cuda")
        except DependencyMissing as error:
            what = error.what.removeprefix("--device cuda: ")
            fix = error.fix or "update the NVIDIA driver to one that this CUDA build takes"
            return Check("device", what, ok=False, fix=fix)
    return Check("device", f"CPU (torch {torch.__version__}; no NVIDIA driver found)", ok=True)


def _codecs() -> Iterator[Check]:
    from tomogen.formats.dicom.codecs import BY_SYNTAX

    for codec in dict.fromkeys(BY_SYNTAX.values()):
        there = codec.available()
        yield Check(
            f"DICOM {codec.name}", "decodes" if there else f"needs {' and '.join(codec.modules)}", there, codec.install
        )


def _processors() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS")
    return Check("processors", f"{count} to use" + (f"; OMP_NUM_THREADS={limit}" if limit else ""), ok=True)


def _memory() -> Check:
    free, total = _free_memory()
    if not total:
        return Check("memory", "unknown", ok=True)
    return Check(
        "memory",
        f"{free / 2**30:.1f} of {total / 2**30:.1f} GB free",
        free >= LEAST_MEMORY,
        f"close other programs: {LEAST_MEMORY / 2**30:.0f} GB are the least to train with",
    )


def _free_memory() -> tuple[int, int]:
    """Bytes free and in all, within the limit of a container; zeros where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        table = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
        free, total = table["MemAvailable"], table["MemTotal"]
    except (OSError, KeyError, ValueError):
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        except (AttributeError, ValueError, OSError):
            return 0, 0
        return total, total
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        return min(free, max(0, limit - used)), min(total, limit)
    except (OSError, ValueError):
        return free, total


def _disk(name: str, place: Path) -> Check:
    if not os.access(place, os.W_OK):
        return Check(name, f"{place} cannot be written", ok=False, fix="work in a folder of your own")
    usage = shutil.disk_usage(place)
    return Check(
        name,
        f"{place}: {usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GB free",
        usage.free >= LEAST_DISK,
        f"free some space: {LEAST_DISK / 2**30:.0f} GB is the least",
    )


def _temporary() -> Path:
    import tempfile

    return Path(tempfile.gettempdir())
