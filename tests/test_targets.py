"""Targets: exact constants by quadrature, samples against densities."""
import math

import pytest
import torch

from flowlib import targets

D = torch.float64


def total(target, low, high, n):
    x, y = (torch.linspace(low, high, n, dtype=D) for _ in range(2))
    z = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)
    return torch.trapezoid(torch.trapezoid(target.log_prob(z).exp(), y), x).item()


@pytest.mark.parametrize("name, log_z", [("U1", 1.877502), ("U2", 2.1129), ("U3", 2.6726), ("U4", 2.7416),
                                         ("EightGaussians", 0.0)])
def test_energies_are_densities(name, log_z):
    target = getattr(targets, name)()
    assert target.log_z == pytest.approx(log_z, abs=1e-4)
    assert total(target, -8, 8, 1601) == pytest.approx(1, abs=1e-6 if name != "U1" else 1e-5)


def test_closed_forms_of_the_walled_strips():
    length = 8 + 0.1 * math.sqrt(2 * math.pi)
    for name, c in (("U2", 0.4), ("U3", 0.7), ("U4", 0.75)):
        assert getattr(targets, name)().log_z == pytest.approx(math.log(length * c * math.sqrt(2 * math.pi)))


def test_without_the_wall_the_constant_grows_with_the_box():
    """E72: Z of U2 on [-4, 4]^2 is 8.021210, on [-8, 8]^2 twice that."""
    u2 = targets.U2()
    for half in (4, 6, 8):
        x, y = torch.linspace(-half, half, 801, dtype=D), torch.linspace(-8, 8, 801, dtype=D)
        z = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)
        mass = torch.trapezoid(torch.trapezoid((u2._wall(z) - u2.energy(z)).exp(), y), x).item()
        assert mass == pytest.approx(2 * half * 0.4 * math.sqrt(2 * math.pi), rel=1e-4)


@pytest.mark.parametrize("name", ["EightGaussians", "Rings", "Checkerboard"])
def test_samples_follow_the_density(name):
    """Counts in 16 x 16 cells against the integral of the density over each: chi-square within five standard
    deviations."""
    torch.manual_seed(0)
    target, n, fine = getattr(targets, name)(), 100_000, 40
    x = target.sample(n).double()
    edges = torch.linspace(-6.4, 6.4, 17, dtype=D)
    counts = torch.histogramdd(x, [edges, edges]).hist
    middles = -6.4 + 12.8 * (torch.arange(16 * fine, dtype=D) + 0.5) / (16 * fine)
    z = torch.stack(torch.meshgrid(middles, middles, indexing="ij"), -1)
    mass = target.log_prob(z).exp().reshape(16, fine, 16, fine).sum((1, 3)) * (12.8 / (16 * fine)) ** 2
    seen = n * mass > 5
    degrees = int(seen.sum()) - 1
    chi2 = ((counts - n * mass)[seen] ** 2 / (n * mass)[seen]).sum().item()
    assert abs(chi2 - degrees) < 5 * math.sqrt(2 * degrees) and counts[~seen].sum() < 0.002 * n


def test_samplers_without_a_density():
    moons, pinwheel = targets.Moons(noise=0.0).sample(1000), targets.Pinwheel().sample(1000)
    near = torch.minimum(((moons - torch.tensor([0.0, 0.0])).norm(dim=1) - 1).abs(),
                         ((moons - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs())
    assert near.max() < 1e-5 and pinwheel.isfinite().all() and not hasattr(targets.Moons(), "log_prob")


def test_energies_keep_the_dtype_and_any_leading_shape():
    for name in ("U1", "U2", "U3", "U4", "EightGaussians", "Rings", "Checkerboard"):
        for dtype in (torch.float32, D):
            out = getattr(targets, name)().energy(torch.randn(2, 3, 2, dtype=dtype))
            assert out.dtype == dtype and out.shape == (2, 3)
