"""Cone-beam projections of a CT against RTK's Joseph, DiffDRR's Siddon and plain torch, in one run.

The claims: in float32 no slower than RTK's Joseph, in bfloat16 at most half of it; at least 30 times as fast as
DiffDRR's Siddon; forward and gradient within 3 times the forward pass; oblique views within 4 times of those along
the grid. Rounds are interleaved; ratios are medians over rounds of two ways timed one after the other. Both peers are
optional (`pip install itk-rtk diffdrr`); what is absent is left out and said to be.

Where other work shares the cores, `--threads 1` is the fair comparison: a projection is hundreds of small products,
and each of them waits for a thread that was sent away.

    python benchmarks/project.py            # writes benchmarks/project.json
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tomogen.radiography.geometry import Geometry, preset
from tomogen.radiography.projector import Projector
from tomogen.radiography.rays import rays_of
from tomogen.volume import Affine, affine_of

SIDE = 320.0
"""mm along every axis of the scan."""
SIZES = {"256^3 to 256^2": ((256, 256, 256), 256), "300 x 512 x 512 to 512^2": ((300, 512, 512), 512)}
OURS = "tomogen, float32"


def scan(shape: tuple[int, int, int]) -> tuple[Tensor, Affine]:
    """Smooth structure up to 0.04 / mm with noise, nothing in the outer tenth."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 16, 16, 16, generator=generator) * 0.04
    mu = F.interpolate(coarse, size=shape, mode="trilinear")[0, 0]
    mu += 0.001 * torch.randn(shape, generator=generator)
    spacing = tuple(SIDE / n for n in shape)
    inner = torch.zeros(shape)
    inner[tuple(slice(n // 10, n - n // 10) for n in shape)] = 1
    return (mu * inner)[None], affine_of(spacing, tuple(mm / 2 - SIDE / 2 for mm in reversed(spacing)))


def plain(mu: Tensor, geometry: Geometry, affine: Affine) -> Callable[[Tensor], Tensor]:
    """What a user writes with torch: every slice sampled by grid_sample, autograd left to itself."""
    rays = rays_of(geometry.views[0], geometry, tuple(mu.shape[1:]), affine)
    other = [n for axis, n in enumerate(mu.shape[1:]) if axis != rays.axis]
    scale = torch.tensor([2 / n for n in reversed(other)])
    mid, step = (torch.from_numpy(part.copy()).float().flip(-1) * scale for part in (rays.mid, rays.step))
    mid = mid + (scale / 2 - 1)
    length = torch.from_numpy(rays.length).float()

    def project(source: Tensor) -> Tensor:
        slices = source.unbind(1 + rays.axis)  # indexing would give each slice a gradient as large as the volume
        total = torch.zeros(1, 1, *geometry.size)
        for n in range(rays.slices):
            where = (mid + (n - (rays.slices - 1) / 2) * step)[None]
            total = total + F.grid_sample(slices[n][:, None], where, align_corners=False)
        return total[0] * length

    return project


def with_rtk(mu: Tensor, geometry: Geometry, affine: Affine) -> Callable[[], NDArray[np.float32]] | None:
    """RTK's Joseph from the front: its z axis runs to the front, its y axis to the head."""
    try:
        import itk
        from itk import RTK
    except ImportError:
        return None
    kind = itk.Image[itk.F, 3]
    image = itk.image_from_array(np.ascontiguousarray(mu[0].permute(1, 0, 2).flip(0).numpy()))
    k, j, i = (float(mm) for mm in np.linalg.norm(affine[:3, :3], axis=0))
    image.SetSpacing((i, k, j))
    image.SetOrigin(
        [-(n - 1) / 2 * mm for n, mm in zip(image.GetLargestPossibleRegion().GetSize(), (i, k, j), strict=True)]
    )
    view = geometry.views[0]
    sad, sid = -view.source[1], view.detector[1] - view.source[1]
    circle = RTK.ThreeDCircularProjectionGeometry.New()
    circle.AddProjection(sad, sid, 0.0)
    rows, columns = geometry.size
    height, width = geometry.pixel
    empty = itk.image_from_array(np.zeros((1, rows, columns), np.float32))
    empty.SetSpacing((width, height, 1.0))
    empty.SetOrigin((-(columns - 1) / 2 * width, -(rows - 1) / 2 * height, 0.0))

    def project() -> NDArray[np.float32]:
        joseph = RTK.JosephForwardProjectionImageFilter[kind, kind].New()
        joseph.SetInput(0, empty)
        joseph.SetInput(1, image)
        joseph.SetGeometry(circle)
        joseph.InPlaceOff()
        joseph.Update()
        return np.asarray(itk.array_from_image(joseph.GetOutput()))[0, ::-1]

    return project


def with_diffdrr(mu: Tensor, geometry: Geometry, affine: Affine) -> Callable[[], Tensor] | None:
    """DiffDRR's Siddon, 16 rows at a time: the whole picture at once takes more memory than this machine has."""
    try:
        from diffdrr.renderers import Siddon
    except ImportError:
        return None
    renderer = Siddon()
    view = geometry.views[0]
    volume = mu[0].permute(2, 1, 0).contiguous()  # its axes are x, y, z
    into = torch.from_numpy(np.linalg.inv(affine)[[2, 1, 0]]).float()
    pixels = torch.from_numpy(geometry.pixels(view)).float().reshape(-1, 16 * geometry.size[1], 3)
    source = torch.tensor(view.source).float()[None, None]
    index = [points @ into[:, :3].T + into[:, 3] for points in (source, pixels)]

    def project() -> Tensor:
        parts = [
            renderer(volume, index[0], some[None], (mm[None] - source).norm(dim=-1)[:, None])
            for mm, some in zip(pixels, index[1], strict=True)
        ]
        return torch.cat(parts, dim=-1).reshape(geometry.size)

    return project


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor milliseconds of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    function()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3


def compared(ways: dict[str, Callable[[], Any]], base: str, rounds: int) -> dict[str, Any]:
    """Medians in ms, and of each way the median over rounds of its time by that of `base`."""
    for way in ways.values():
        way()
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            taken[name].append(timed(way))
    return {
        "ms": {
            name: {
                "wall": round(statistics.median(t[0] for t in each), 1),
                "cpu": round(statistics.median(t[1] for t in each), 1),
            }
            for name, each in taken.items()
        },
        f"times {base}": {
            name: {
                key: round(statistics.median(t[n] / max(b[n], 1e-6) for t, b in zip(each, taken[base], strict=True)), 2)
                for n, key in enumerate(("wall", "cpu"))
            }
            for name, each in taken.items()
            if name != base
        },
    }


def difference(found: Any, wanted: Any) -> float:
    """Relative L2."""
    found, wanted = (np.asarray(image, dtype=np.float64).reshape(-1) for image in (found, wanted))
    return float(f"{np.linalg.norm(found - wanted) / np.linalg.norm(wanted):.2g}")


def measured(shape: tuple[int, int, int], pixels: int, rounds: int) -> dict[str, Any]:
    """All comparisons at one size."""
    mu, affine = scan(shape)
    half = mu.bfloat16()
    geometry = preset("x2ct", ["ap"]).resized(pixels)
    projector = Projector(geometry, shape, affine)
    by_torch = plain(mu, geometry, affine)
    ways: dict[str, Callable[[], Any]] = {
        OURS: lambda: projector(mu),
        "tomogen, bfloat16": lambda: projector(half),
        "torch, grid_sample per slice": lambda: by_torch(mu),
    }
    exact = projector(mu.double())[0, 0]
    equality = {
        "float32 to float64": difference(projector(mu)[0, 0], exact),
        "bfloat16 to float64": difference(projector(half)[0, 0], exact),
        "grid_sample per slice": difference(by_torch(mu)[0], exact),
    }
    rtk = with_rtk(mu, geometry, affine)
    if rtk is not None:
        ways["RTK, Joseph"] = rtk
        equality["RTK, Joseph"] = difference(rtk(), exact)
    found: dict[str, Any] = {"along the grid": compared(ways, OURS, rounds)}
    if rtk is not None:
        found["against RTK"] = compared(
            {name: ways[name] for name in ("RTK, Joseph", OURS, "tomogen, bfloat16")}, "RTK, Joseph", rounds
        )
    diffdrr = with_diffdrr(mu, geometry, affine) if max(shape) <= 256 else None
    if diffdrr is not None:
        equality["DiffDRR, Siddon"] = difference(diffdrr(), exact)
        found["against DiffDRR"] = compared({OURS: ways[OURS], "DiffDRR, Siddon": diffdrr}, OURS, 3)

    learnt = mu.clone().requires_grad_()

    def gradient(project: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def both() -> None:
            learnt.grad = None
            project(learnt).sum().backward()

        return both

    found["forward and gradient"] = compared(
        {
            OURS: ways[OURS],
            "with gradient": gradient(projector),
            "torch, grid_sample, autograd": gradient(by_torch),
        },
        OURS,
        max(3, rounds // 2),
    )
    views = {
        name: preset("x2ct", [view]).views[0]
        for name, view in (("lateral", "lateral"), ("30 degrees", 30.0), ("60 degrees", 60.0))
    }
    turned = {name: Projector(replace(geometry, views=(view,)), shape, affine) for name, view in views.items()}
    found["other views"] = compared(
        {OURS: ways[OURS], **{name: (lambda one=one: one(mu)) for name, one in turned.items()}},
        OURS,
        max(3, rounds // 2),
    )
    found["relative L2 differences"] = equality
    return found


def verdicts(found: dict[str, Any]) -> dict[str, Any]:
    """Each claim, by wall time, at each size: the figure and whether it is met."""
    made = {}
    for size, results in found.items():
        rtk = results.get("against RTK", {}).get("times RTK, Joseph")
        if rtk:
            for name, limit in ((OURS, 1.0), ("tomogen, bfloat16", 0.5)):
                made[f"{size}: {name} / RTK <= {limit:g}"] = rtk[name]["wall"], rtk[name]["wall"] <= limit
        if "against DiffDRR" in results:
            ratio = results["against DiffDRR"][f"times {OURS}"]["DiffDRR, Siddon"]["wall"]
            made[f"{size}: DiffDRR's Siddon / tomogen >= 30"] = ratio, ratio >= 30
        ratio = results["forward and gradient"][f"times {OURS}"]["with gradient"]["wall"]
        made[f"{size}: forward and gradient / forward <= 3"] = ratio, ratio <= 3
        ratio = max(t["wall"] for t in results["other views"][f"times {OURS}"].values())
        made[f"{size}: slowest other view / along the grid <= 4"] = ratio, ratio <= 4
    return {claim: {"found": ratio, "met": met} for claim, (ratio, met) in made.items()}


def version(name: str) -> str:
    """Of an installed distribution, or that it is absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent, not compared"


def processor() -> str:
    """Its name, as far as the system tells."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch and of ITK")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(arguments.threads)  # read when ITK is imported
    start = round(os.getloadavg()[0], 1)
    found = {name: measured(*size, arguments.rounds) for name, size in SIZES.items()}
    report = {
        "claims, by wall time": verdicts(found),
        "geometry": "cone, SAD 541 mm, SID 949 mm, 500 mm detector, from the front; plans made before",
        "rounds": arguments.rounds,
        "results": found,
        "machine": {
            "processor": processor(), "cores": os.cpu_count(), "load before": start,
            "load after": round(os.getloadavg()[0], 1), "threads": arguments.threads,
            "torch": torch.__version__, "itk-rtk": version("itk-rtk"), "diffdrr": version("diffdrr"),
        },
    }  # fmt: skip
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
