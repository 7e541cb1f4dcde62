"""Line integrals against exact shadows, other renderers' pictures, and the laws of linear maps."""

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tomogen.errors import DataInvalid, InputMissing, UsageFault
from tomogen.radiography import geometry as stand
from tomogen.radiography import look
from tomogen.radiography.attenuation import attenuation, of_bone, of_water
from tomogen.radiography.banded import Banded
from tomogen.radiography.field import missed
from tomogen.radiography.geometry import ANGLES, PRESETS, Geometry, View, preset, shot
from tomogen.radiography.projector import Projector
from tomogen.radiography.rays import rays_of
from tomogen.radiography.slanted import Slanted
from tomogen.volume import Volume, affine_of

SHAPE, SPACING = (12, 10, 14), (3.0, 4.0, 2.5)
AFFINE = affine_of(SPACING, (5.0, -3.0, 7.0))


def small(*views: str | float, name: str = "x2ct", tilt: float = 0.0, size: tuple[int, int] = (9, 11)) -> Geometry:
    """A detector that sees a little more than the grid of `SHAPE`."""
    return replace(preset(name, views, tilt), size=size, pixel=(9.0, 8.0))


def turned(degrees: float = 20.0) -> np.ndarray:
    """An affine whose axes lie along none of the patient's."""
    a = np.radians(degrees)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine = AFFINE.copy()
    affine[:3, :3] = turn @ turn[[2, 0, 1]][:, [2, 0, 1]] @ affine[:3, :3]
    return affine


def rng(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# Exact shadows.


SEMI, AT = np.array([60.0, 40.0, 75.0]), np.array([10.0, -15.0, 5.0])


@functools.cache
def ellipsoid(n: int) -> tuple[torch.Tensor, np.ndarray]:
    """An ellipsoid of mu 0.02 in a cube of 200 mm, voxels at its edge in part (4 x 4 x 4 points each)."""
    mm = 200 / n
    line = (np.arange(4 * n) - (4 * n - 1) / 2) * mm / 4
    x, y, z = (((line - at) / semi) ** 2 for at, semi in zip(AT, SEMI, strict=True))
    inside = z[:, None, None] + y[:, None] + x <= 1
    mu = inside.reshape(n, 4, n, 4, n, 4).mean(axis=(1, 3, 5)) * 0.02
    return torch.from_numpy(mu)[None], affine_of((mm,) * 3, (-(200 - mm) / 2,) * 3)


def ellipsoid_shadow(geometry: Geometry, view: View) -> np.ndarray:
    """Chord of every ray through the ellipsoid, times 0.02."""
    pixels = geometry.pixels(view)
    start = np.array(view.source) if geometry.beam == "cone" else pixels + view.source - np.array(view.detector)
    direction = pixels - start
    direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
    d, o = direction / SEMI, (start - AT) / SEMI
    a, b, c = (d * d).sum(-1), (d * o).sum(-1), (o * o).sum(-1) - 1
    return 0.02 * 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a


@pytest.mark.parametrize("name", ["x2ct", "parallel"])
def test_shadows_of_an_ellipsoid_are_exact_in_the_limit(name: str) -> None:
    geometry = preset(name, ["pa", "ap", "lateral", "right", 30.0, 135.0, -60.0]).resized(48)
    exact = np.stack([ellipsoid_shadow(geometry, view) for view in geometry.views])
    errors = []
    for n in (12, 24, 48):
        mu, affine = ellipsoid(n)
        found = Projector(geometry, (n,) * 3, affine)(mu)[0].numpy()
        errors.append(np.sqrt(((found - exact) ** 2).sum((1, 2)) / (exact**2).sum((1, 2))))
    assert errors[2].max() < 0.04
    for coarse, fine in itertools.pairwise(errors):
        assert (fine < 0.62 * coarse).all(), errors


@pytest.mark.parametrize("view", ["pa", "ap", "lateral", "right"])
def test_a_slab_across_the_beam_is_as_thick_as_its_voxels_times_the_rays_slant(view: str) -> None:
    geometry = small(view)
    projector = Projector(geometry, SHAPE, AFFINE)
    middle = projector(torch.ones(1, *SHAPE, dtype=torch.float64))[0, 0, 4, 5].item()
    thick = SHAPE[1] * SPACING[1] if view in ("pa", "ap") else SHAPE[2] * SPACING[2]
    assert middle == pytest.approx(thick, rel=1e-12)
    # one pixel (9 mm down, 949 mm away) beside the central ray
    beside = projector(torch.ones(1, *SHAPE, dtype=torch.float64))[0, 0, 3, 5].item()
    assert beside == pytest.approx(thick * np.hypot(1, 9 / 949), rel=1e-12)


def test_a_slanted_parallel_ray_through_a_slab_is_longer_by_the_cosine() -> None:
    shape = (4, 21, 200)
    geometry = small(30.0, name="parallel", size=(1, 1))
    found = Projector(geometry, shape, affine_of((2.0, 1.0, 2.0)))(torch.ones(1, *shape, dtype=torch.float64))
    assert found.item() == pytest.approx(21 / np.cos(np.radians(30)), rel=1e-9)


# Where points land.


def peak(image: torch.Tensor) -> np.ndarray:
    """Centre of gravity (row, column)."""
    rows, columns = (torch.arange(n, dtype=image.dtype) for n in image.shape)
    return np.array([(image.sum(1) @ rows / image.sum()).item(), (image.sum(0) @ columns / image.sum()).item()])


@pytest.mark.parametrize("name", ["x2ct", "chest", "parallel"])
@pytest.mark.parametrize("affine", [AFFINE, turned()], ids=["straight", "turned"])
def test_a_voxel_casts_its_shadow_where_the_geometry_says(name: str, affine: np.ndarray) -> None:
    geometry = replace(preset(name, [*ANGLES, 20.0, 200.0, -75.0], 0.0), size=(81, 91), pixel=(1.5, 1.4))
    volume = Volume(np.zeros(SHAPE, np.int16), affine)
    index = (3, 6, 9)
    mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
    mu[(0, *index)] = 1
    shadows = Projector(geometry, SHAPE, affine)(mu)[0]
    for view, shadow in zip(geometry.views, shadows, strict=True):
        place, inside = geometry.landing(view, volume.world(index) - volume.centre)
        assert inside
        # a voxel is large, and its near half larger than its far one: a tenth of a 1.5 mm pixel
        assert peak(shadow) == pytest.approx(place, abs=0.1), view.name


def test_magnification_is_sid_over_sad() -> None:
    geometry = replace(preset("x2ct", ["pa"]), size=(5, 801), pixel=(1.0, 0.25))
    assert geometry.magnification(geometry.views[0]) == pytest.approx(949 / 541)
    mu = torch.zeros(1, 1, 1, 101, dtype=torch.float64)
    mu[..., [20, 80]] = 1  # 60 mm apart in the isocentre's plane
    row = Projector(geometry, (1, 1, 101), affine_of((1.0, 1.0, 1.0)))(mu)[0, 0, 2]
    left, right = (peak(part[None])[1] for part in (row[:400], row[400:]))
    assert (right + 400 - left) / 4 == pytest.approx(60 * 949 / 541, abs=0.01)


def test_parallel_beams_show_a_point_at_its_height_and_in_life_size_in_every_view() -> None:
    geometry = replace(preset("parallel", ["pa", "lateral", 33.0]), size=(61, 61), pixel=(1.0, 1.0))
    mu = rng(1, *SHAPE).abs()
    pa, lateral, slanted = Projector(geometry, SHAPE, AFFINE)(mu)[0]
    torch.testing.assert_close(pa.sum(1), lateral.sum(1), rtol=1e-6, atol=1e-9)
    assert peak(pa)[0] == pytest.approx(peak(lateral)[0], abs=1e-9)
    assert peak(pa)[0] == pytest.approx(peak(slanted)[0], abs=0.01)


def test_in_a_cone_heights_of_the_two_views_differ() -> None:
    mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
    mu[0, 10, 1, 2] = 1
    pa, lateral = Projector(replace(small("pa", "lateral"), size=(61, 61), pixel=(2.0, 2.0)), SHAPE, AFFINE)(mu)[0]
    assert abs(peak(pa)[0] - peak(lateral)[0]) > 0.1


# How pictures hang.


def test_the_patients_right_is_on_the_left_in_pa_and_in_ap_and_the_head_is_up() -> None:
    mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
    mu[0, -1, 5, 0] = 1  # high, at the patient's right
    for image in Projector(small("pa", "ap"), SHAPE, AFFINE)(mu)[0]:
        row, column = peak(image)
        assert (row < 3.5, column < 4.5) == (True, True)


def test_pa_and_ap_are_one_picture_in_a_parallel_beam_and_differ_in_a_cone_as_depth_does() -> None:
    mu = rng(1, *SHAPE).abs()
    pa, ap = Projector(small("pa", "ap", name="parallel"), SHAPE, AFFINE)(mu)[0]
    torch.testing.assert_close(pa, ap)
    pa, ap = Projector(small("pa", "ap"), SHAPE, AFFINE)(mu)[0]
    assert (pa - ap).norm() > 0.01 * pa.norm()
    # Turning the patient front to back makes of one the other.
    pa_turned = Projector(small("pa"), SHAPE, AFFINE)(mu.flip(2))[0, 0]
    torch.testing.assert_close(pa_turned, ap)


def test_angle_180_is_ap_mirrored_since_it_is_seen_from_the_detector() -> None:
    ap, turned_ = Projector(small("ap", 180.0), SHAPE, AFFINE)(rng(1, *SHAPE))[0]
    torch.testing.assert_close(ap, turned_.flip(1))


def test_the_front_of_the_chest_is_left_in_a_left_lateral_and_right_in_a_right_one() -> None:
    mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
    mu[0, 6, 0, 7] = 1  # in front
    left, right = Projector(small("lateral", "right"), SHAPE, AFFINE)(mu)[0]
    assert peak(left)[1] < 4
    assert peak(right)[1] > 6


def test_an_object_in_front_is_shown_larger_from_the_front() -> None:
    mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
    mu[0, 4:8, 0, 4:10] = 1
    pa, ap = Projector(replace(small("pa", "ap"), size=(61, 61), pixel=(2.0, 2.0)), SHAPE, AFFINE)(mu)[0]
    assert (ap > 0.5).sum() > (pa > 0.5).sum()


def test_tilt_lowers_what_lies_nearer_to_the_source() -> None:
    mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
    mu[0, 6, -1, 7] = 1  # at the back, where a PA's source is
    geometry = replace(preset("parallel", ["pa"], 20.0), size=(61, 61), pixel=(2.0, 2.0))
    assert geometry.views[0].name == "patilt+20"
    straight = replace(preset("parallel", ["pa"]), size=(61, 61), pixel=(2.0, 2.0))
    low, level = (peak(Projector(one, SHAPE, AFFINE)(mu)[0, 0])[0] for one in (geometry, straight))
    # 18 mm behind the isocentre, sin 20 x 18 mm = 6.2 mm = 3.1 pixels; the point's own height shrinks by cos 20
    assert low - level == pytest.approx(18 * np.sin(np.radians(20)) / 2, abs=0.15)


# A linear map and its adjoint.

CASES: dict[str, Callable[[], tuple[Geometry, np.ndarray]]] = {
    "cone along the grid": lambda: (small("pa", "lateral", "ap", "right"), AFFINE),
    "cone at angles": lambda: (small(30.0, -50.0, 140.0), AFFINE),
    "cone on a turned grid": lambda: (small("pa", "lateral"), turned()),
    "cone tilted": lambda: (small("pa", 45.0, tilt=15.0), AFFINE),
    "parallel": lambda: (small("pa", "lateral", 25.0, name="parallel"), AFFINE),
    "detector within the scan": lambda: (within("pa", 40.0), AFFINE),
}


def within(*views: str | float) -> Geometry:
    """A detector 5 mm behind the isocentre."""
    geometry = small(*views)
    near = tuple(replace(view, detector=tuple(-5 / 541 * np.array(view.source))) for view in geometry.views)
    return replace(geometry, views=near, pixel=(4.0, 4.0))


@pytest.mark.parametrize("case", CASES)
def test_the_adjoint_is_the_adjoint(case: str) -> None:
    geometry, affine = CASES[case]()
    projector = Projector(geometry, SHAPE, affine)
    x, y = rng(2, *SHAPE), rng(2, len(geometry.views), *geometry.size, seed=1)
    forward, back = (projector(x) * y).sum().item(), (x * projector.adjoint(y)).sum().item()
    assert forward == pytest.approx(back, rel=1e-12, abs=1e-9)
    assert abs(forward) > 1e-3


@pytest.mark.parametrize("case", ["cone along the grid", "cone at angles", "detector within the scan"])
def test_gradients_are_those_of_finite_differences_once_and_twice(case: str) -> None:
    geometry, _ = CASES[case]()
    shape = (2, 3, 3)
    projector = Projector(replace(geometry, size=(2, 3), pixel=(9.0, 7.0)), shape, AFFINE)
    mu = rng(1, *shape).requires_grad_()

    def curved(mu: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.05 * projector(mu))

    assert torch.autograd.gradcheck(curved, mu)
    assert torch.autograd.gradgradcheck(curved, mu)


def test_nothing_of_the_volume_is_kept_for_the_gradient() -> None:
    mu = torch.rand(1, *SHAPE, requires_grad=True)
    shadow = Projector(small("pa", 30.0), SHAPE, AFFINE)(mu)
    assert not hasattr(shadow.grad_fn, "saved_tensors") or shadow.grad_fn.saved_tensors == ()


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.floats(-3, 3))
def test_projection_is_linear(seed: int, factor: float) -> None:
    projector = Projector(small("pa", 40.0), SHAPE, AFFINE)
    x, y = rng(1, *SHAPE, seed=seed), rng(1, *SHAPE, seed=seed + 1)
    torch.testing.assert_close(projector(x + factor * y), projector(x) + factor * projector(y))


def test_every_volume_of_a_batch_and_every_view_is_by_itself() -> None:
    geometry = small("pa", "lateral", 30.0)
    mu = rng(3, *SHAPE)
    together = Projector(geometry, SHAPE, AFFINE)(mu)
    assert together.shape == (3, 3, 9, 11)
    for n, view in enumerate(geometry.views):
        alone = Projector(replace(geometry, views=(view,)), SHAPE, AFFINE)(mu[1:2, None])
        torch.testing.assert_close(alone[0, 0], together[1, n])


@pytest.mark.parametrize("name", ["x2ct", "parallel"])
@pytest.mark.parametrize("view", ["pa", "ap", "lateral", "right"])
def test_bands_and_slices_give_one_picture(name: str, view: str) -> None:
    geometry = small(view, name=name, size=(70, 90))
    geometry = replace(geometry, pixel=(1.1, 1.0))
    rays = rays_of(geometry.views[0], geometry, SHAPE, AFFINE)
    assert rays.across
    mu = rng(2, *SHAPE)
    quick, plain = Banded(rays, SHAPE, mu), Slanted(rays, SHAPE, mu)
    torch.testing.assert_close(quick.forward(mu), plain.forward(mu))
    images = rng(2, 70, 90)
    one, other = torch.zeros_like(mu), torch.zeros_like(mu)
    quick.adjoint(images, one)
    plain.adjoint(images, other)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("orientation", ["SPL", "LPS", "PSR", "IAR", "RIA"])
def test_how_the_array_lies_in_memory_does_not_matter(orientation: str) -> None:
    volume = Volume(rng(*SHAPE).numpy().astype(np.float32), AFFINE)
    other = volume.reorient(orientation)
    geometry = small("pa", "lateral", 35.0, tilt=0.0)
    shadows = [
        Projector(geometry, one.shape, one.affine)(torch.from_numpy(one.hu).double()[None]) for one in (volume, other)
    ]
    torch.testing.assert_close(shadows[0], shadows[1], rtol=1e-9, atol=1e-9)


def test_a_scan_elsewhere_in_the_world_is_shot_alike_unless_the_isocentre_is_told() -> None:
    mu, moved = rng(1, *SHAPE), AFFINE.copy()
    moved[:3, 3] += (100.0, -50.0, 30.0)
    geometry = small("pa", 20.0)
    here = Projector(geometry, SHAPE, AFFINE)(mu)
    torch.testing.assert_close(here, Projector(geometry, SHAPE, moved)(mu), rtol=1e-9, atol=1e-9)
    centre = Volume(np.zeros(SHAPE, np.int16), AFFINE).centre
    told = replace(geometry, isocentre=tuple(centre))
    torch.testing.assert_close(here, Projector(told, SHAPE, AFFINE)(mu), rtol=1e-9, atol=1e-9)
    assert Projector(told, SHAPE, moved)(mu).abs().max() == 0


def test_float32_differs_from_float64_by_its_rounding_and_bfloat16_by_its_own() -> None:
    projector = Projector(small("pa", "lateral", 30.0), SHAPE, AFFINE)
    mu = rng(1, *SHAPE).abs()
    exact = projector(mu)
    single, half = projector(mu.float()), projector(mu.bfloat16())
    assert single.dtype == half.dtype == torch.float32
    assert (single - exact).norm() < 1e-6 * exact.norm()
    assert (half - exact).norm() < 5e-3 * exact.norm()


def test_what_lies_behind_the_detector_throws_no_shadow() -> None:
    for view in ("pa", 40.0):
        geometry = within(view)
        mu = torch.zeros(1, *SHAPE, dtype=torch.float64)
        mu[0, :, 0, :] = 1  # the front: 18 mm before the isocentre, where a PA's detector is
        projector = Projector(geometry, SHAPE, AFFINE)
        if view == "pa":
            assert projector(mu).abs().max() == 0
        assert projector(mu.flip(2)).max() > 1


def test_a_grid_of_one_voxel_is_projected() -> None:
    found = Projector(small("pa", 30.0), (1, 1, 1), AFFINE)(torch.ones(1, 1, 1, 1, dtype=torch.float64))
    assert found[0, 0, 4, 5].item() == pytest.approx(4.0)


# Other renderers' pictures of one phantom.


@pytest.fixture(scope="module")
def reference(ctdata: Path) -> Path:
    folder = ctdata.parent / "reference" / "drr"
    if not folder.is_dir():
        pytest.skip(f"no reference projections at {folder}")
    return folder


@pytest.fixture(scope="module")
def projections(reference: Path) -> dict[str, dict[str, np.ndarray]]:
    """Ours of the reference volume, along the grid and as if it were oblique."""
    mu = torch.from_numpy(np.load(reference / "volume_64.npz")["mu"]).float()[None]
    geometry = preset("x2ct", ["ap", "lateral"]).resized(128)
    affine = affine_of((5.0,) * 3, (-157.5,) * 3)
    rays = [rays_of(view, geometry, (64,) * 3, affine) for view in geometry.views]
    return {
        kind.__name__: {
            name: kind(one, (64,) * 3, mu).forward(mu)[0].numpy()
            for name, one in zip(("frontal", "lateral"), rays, strict=True)
        }
        for kind in (Banded, Slanted)
    }


@pytest.mark.parametrize("kind", ["Banded", "Slanted"])
@pytest.mark.parametrize("view", ["frontal", "lateral"])
@pytest.mark.parametrize(("peer", "limit"), [("rtk", 1e-5), ("plastimatch", 0.02), ("analytic", 0.03), ("gvxr", 0.03)])
def test_other_renderers_of_the_reference_phantom_agree(
    projections: dict[str, Any], reference: Path, kind: str, view: str, peer: str, limit: float
) -> None:
    ours, theirs = projections[kind][view], np.load(reference / f"{peer}_{view}_128.npy")
    assert np.linalg.norm(ours - theirs) < limit * np.linalg.norm(theirs)
    if peer == "rtk":  # half a pixel to the side would be seen
        moved = (ours + np.roll(ours, 1, axis=1)) / 2
        assert np.linalg.norm(moved - theirs) > 1000 * limit * np.linalg.norm(theirs)


# Geometry as a file, and what makes none.


@pytest.mark.parametrize("name", PRESETS)
def test_a_geometry_comes_back_from_its_file_as_it_was(name: str, tmp_path: Path) -> None:
    geometry = replace(preset(name, [*ANGLES, 12.5, -100.0]), isocentre=(1.0, -2.5, 1 / 3))
    stand.save(geometry, tmp_path / "g.json", {"energy_kev": 60})
    assert stand.load(tmp_path / "g.json") == geometry
    assert json.loads((tmp_path / "g.json").read_text())["schema"] == 1


def test_x2cts_field_of_view_is_285_mm_and_the_chest_presets_500() -> None:
    for name, mm in (("x2ct", 285.04), ("chest", 500.0), ("parallel", 512.0)):
        geometry = preset(name)
        assert geometry.field_of_view(geometry.views[0]) == pytest.approx((mm, mm), abs=0.01)


def test_resizing_keeps_the_detector() -> None:
    geometry = preset("x2ct").resized(77)
    assert geometry.size == (77, 77)
    assert geometry.pixel[1] * 77 == pytest.approx(500)


def broken(edit: Callable[[dict[str, Any]], Any]) -> str:
    found = stand.record(preset("x2ct"))
    edit(found)
    return json.dumps(found)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "damaged JSON at line 1"),
        ('{"schema": 1,\n "kind"', "damaged JSON at line 2"),
        ("[" * 100_000, "damaged JSON"),
        ("[1, 2]", "no geometry"),
        ("{}", "no geometry"),
        (broken(lambda g: g.update(schema=2)), "schema 2"),
        (broken(lambda g: g.pop("beam")), "lacks beam"),
        (broken(lambda g: g.update(beams=1)), "unknown keys: beams"),
        (broken(lambda g: g.update(beam="fan")), "cone or parallel"),
        (broken(lambda g: g.update(views=[])), "at least one view"),
        (broken(lambda g: g.update(views=3)), "list of objects"),
        (broken(lambda g: g["views"][0].pop("down")), "lacks down"),
        (broken(lambda g: g["views"][0].update(right=[1, 1, 0])), "unit vectors"),
        (broken(lambda g: g["views"][0].update(source_mm=[0, float("nan"), 0])), "3 finite numbers"),
        (broken(lambda g: g["views"][0].update(source_mm=[0, True, 0])), "3 finite numbers"),
        (broken(lambda g: g["views"][0].update(source_mm=[0, -408, 0])), "plane of its detector"),
        (broken(lambda g: g["views"][0].update(name="../x")), "letters, digits"),
        (broken(lambda g: g["views"][0].update(name=g["views"][1]["name"])), "names of their own"),
        (broken(lambda g: g.update(detector_px=[0, 5])), "at least 1"),
        (broken(lambda g: g.update(detector_px=[2.5, 5])), "whole numbers"),
        (broken(lambda g: g.update(pixel_mm=[1, -1])), "above 0 mm"),
        (broken(lambda g: g.update(isocentre_mm="middle")), "3 finite numbers"),
    ],
)
def test_a_file_that_is_no_geometry_is_refused_with_its_fault(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "g.json"
    path.write_text(text)
    with pytest.raises(DataInvalid, match=says) as caught:
        stand.load(path)
    assert caught.value.at == str(path)
    assert caught.value.fix


def test_a_geometry_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissing):
        stand.load(tmp_path / "g.json")


def test_unknown_presets_views_and_angles_are_refused() -> None:
    with pytest.raises(UsageFault, match="chest, x2ct, parallel"):
        preset("hip")
    with pytest.raises(UsageFault, match="pa, ap, lateral"):
        preset("chest", ["oblique"])
    with pytest.raises(UsageFault, match="number of degrees"):
        shot("v", angle=float("nan"), sad=1, sid=2)
    with pytest.raises(UsageFault, match="names of their own"):
        preset("chest", ["pa", "pa"])


def test_a_source_within_the_scan_and_rays_along_its_slices_are_refused() -> None:
    with pytest.raises(DataInvalid, match="its source lies within the scan"):
        Projector(small("pa"), (10, 300, 10), affine_of((4.0,) * 3))
    with pytest.raises(DataInvalid, match="nearly parallel"):
        Projector(replace(small("pa"), pixel=(9.0, 1000.0)), SHAPE, AFFINE)


def test_mu_of_another_shape_or_of_whole_numbers_is_refused() -> None:
    projector = Projector(small("pa"), SHAPE, AFFINE)
    with pytest.raises(ValueError, match="on a grid of"):
        projector(torch.zeros(1, 3, 3, 3))
    with pytest.raises(ValueError, match="floating"):
        projector(torch.zeros(1, *SHAPE, dtype=torch.int16))
    with pytest.raises(ValueError, match="images are"):
        projector.adjoint(torch.zeros(1, 2, 9, 11))


def test_the_part_of_a_patient_beside_the_beam_is_what_lies_there() -> None:
    hu = np.full((10, 20, 100), -1000, np.int16)
    hu[:, 9:11] = 0  # a plate 400 mm wide in the isocentre's plane
    volume = Volume(hu, affine_of((4.0,) * 3))
    wide, narrow = (preset(name, ["pa"]) for name in ("chest", "x2ct"))
    assert missed(volume, wide, wide.views[0]) == 0
    assert missed(volume, narrow, narrow.views[0]) == pytest.approx(1 - 285 / 400, abs=0.02)
    assert missed(Volume(np.full_like(hu, -1000), volume.affine), wide, wide.views[0]) == 0


# Attenuation.


def test_water_and_bone_attenuate_as_nist_says_and_air_does_not() -> None:
    hu = torch.tensor([-3024.0, -1000.0, -500.0, 0.0], dtype=torch.float64)
    assert attenuation(hu, 60).tolist() == pytest.approx([0, 0, 0.5 * 0.02059, 0.02059], rel=1e-12)
    assert of_water(100) == pytest.approx(0.01707)
    assert of_bone(60) == pytest.approx(0.3148 * 1.92 / 10)
    assert of_water(70) == pytest.approx(0.0193, abs=0.0001)  # between 0.0206 at 60 and 0.0184 at 80


def test_at_the_scanners_energy_attenuation_is_what_hu_mean() -> None:
    hu = torch.linspace(-1000, 3000, 41, dtype=torch.float64)
    torch.testing.assert_close(attenuation(hu, 70), of_water(70) * (1 + hu / 1000))


def test_cortical_bone_has_its_own_attenuation_at_every_energy() -> None:
    hu = torch.tensor([(of_bone(70) / of_water(70) - 1) * 1000], dtype=torch.float64)
    for energy in (20, 40, 60, 100, 150):
        assert attenuation(hu, energy).item() == pytest.approx(of_bone(energy))


def test_lower_energies_show_more_bone() -> None:
    hu = torch.tensor([0.0, 800.0])
    contrast = [float(attenuation(hu, energy)[1] / attenuation(hu, energy)[0]) for energy in (40, 60, 80, 120)]
    assert contrast == sorted(contrast, reverse=True)


@pytest.mark.parametrize("energy", [0.0, 19.0, 151.0, float("nan"), -60.0])
def test_an_energy_outside_the_table_is_refused(energy: float) -> None:
    with pytest.raises(UsageFault, match="20 to 150 keV"):
        attenuation(torch.zeros(1), energy)


def test_attenuation_is_differentiable_and_takes_integers() -> None:
    hu = torch.tensor([-500.0, 40.0, 700.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda hu: attenuation(hu, 50), hu)
    assert attenuation(torch.zeros(2, dtype=torch.int16)).dtype == torch.float32


# The look.


@given(st.lists(st.floats(0, 12), min_size=2, max_size=20))
def test_intensity_and_line_integral_are_each_others_inverse(values: list[float]) -> None:
    integrals = np.array(values)
    assert look.integrals_of(look.transmitted(integrals)) == pytest.approx(integrals, abs=1e-9)


def test_no_photons_at_all_is_a_finite_line_integral() -> None:
    assert np.isfinite(look.integrals_of(np.zeros(1, np.float32))).all()


def test_grey_values_run_over_the_whole_scale_and_inversion_turns_them() -> None:
    integrals = np.array([[0.0, 1.0, 2.0, 4.0, 9.0]])
    for bits, top in ((8, 255), (16, 65535)):
        grey, ends = look.pictured(integrals, look.Look(range=(0.0, 4.0), bits=bits))
        assert ends == (0.0, 4.0)
        assert grey.tolist() == [[0, round(top / 4), round(top / 2), top, top]]
        dark, _ = look.pictured(integrals, look.Look(range=(0.0, 4.0), bits=bits, invert=True))
        assert np.abs(grey.astype(int) + dark - top).max() <= 1


def test_the_intensity_form_saturates_in_thick_parts() -> None:
    grey, _ = look.pictured(np.array([[0.0, 0.7, 20.0, 40.0]]), look.Look(form="intensity", range=(0.0, 1.0)))
    assert grey.tolist() == [[0, round(255 * (1 - np.exp(-0.7))), 255, 255]]


def test_percentiles_are_of_the_patient_and_not_of_the_air_around() -> None:
    integrals = np.zeros((10, 100))
    integrals[0] = np.linspace(1, 2, 100)
    _, ends = look.pictured(integrals, look.Look(percentiles=(0.0, 100.0)))
    assert ends == (1.0, 2.0)
    grey, _ = look.pictured(np.zeros((3, 3)), look.Look())
    assert (grey == 0).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"form": "film"},
        {"bits": 12},
        {"range": (2.0, 1.0)},
        {"percentiles": (99.0, 1.0)},
        {"range": (0.0, float("nan"))},
    ],
)
def test_a_look_that_makes_no_picture_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageFault):
        look.Look(**wrong)


@pytest.mark.gpu
def test_a_gpu_gives_what_the_processor_gives() -> None:
    geometry = small("pa", "lateral", 30.0)
    mu = rng(2, *SHAPE)
    on_gpu, on_cpu = Projector(geometry, SHAPE, AFFINE)(mu.cuda()).cpu(), Projector(geometry, SHAPE, AFFINE)(mu)
    torch.testing.assert_close(on_gpu, on_cpu)
    images = rng(2, 3, 9, 11)
    projector = Projector(geometry, SHAPE, AFFINE)
    torch.testing.assert_close(projector.adjoint(images.cuda()).cpu(), projector.adjoint(images))
