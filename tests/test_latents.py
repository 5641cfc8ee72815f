"""Latent arithmetic: the points that a path must pass, the lengths that it keeps, and one scale at a time."""
import math

import pytest
import torch

import flowlib as fl
from flowlib import latents

D = torch.float64


@pytest.mark.parametrize("path", [latents.linear, latents.spherical])
def test_paths_go_from_a_to_b_for_any_batch(path):
    a, b, t = torch.randn(5, 7, dtype=D), torch.randn(5, 7, dtype=D), torch.linspace(0, 1, 9, dtype=D)
    z = path(a, b, t)
    assert z.shape == (9, 5, 7) and z.dtype == D
    torch.testing.assert_close(z[0], a)
    torch.testing.assert_close(z[-1], b)
    torch.testing.assert_close(path(a, b, 0.5), z[4])
    torch.testing.assert_close(path(a[2], b[2], t), z[:, 2])


def test_the_great_circle_keeps_the_length_and_turns_at_a_constant_rate():
    a = torch.nn.functional.normalize(torch.randn(4, 6, dtype=D), dim=-1) * 3
    b = torch.nn.functional.normalize(torch.randn(4, 6, dtype=D), dim=-1) * 3
    z = latents.spherical(a, b, torch.linspace(0, 1, 11, dtype=D))
    torch.testing.assert_close(z.norm(dim=-1), torch.full((11, 4), 3.0, dtype=D))
    chords = (z[1:] - z[:-1]).norm(dim=-1)
    torch.testing.assert_close(chords, chords[:1].expand(10, 4))


def test_the_straight_line_cuts_inside():
    """The middle of two independent latents is shorter by a factor of sqrt 2, that of the great circle is
    not."""
    a, b = torch.randn(2, 200, 3072, dtype=D)
    typical = math.sqrt(3072)
    assert (latents.linear(a, b, 0.5).norm(dim=-1).mean()
            / typical).item() == pytest.approx(1 / math.sqrt(2), abs=0.003)
    assert (latents.spherical(a, b, 0.5).norm(dim=-1).mean() / typical).item() == pytest.approx(1, abs=0.003)


def test_nearly_parallel_latents_are_joined_by_a_straight_line():
    a = torch.randn(3, 8, dtype=D)
    for b in (a, 2 * a, a + 1e-9 * torch.randn(3, 8, dtype=D)):
        torch.testing.assert_close(latents.spherical(a, b, 0.3), latents.linear(a, b, 0.3))
    b = a + 2e-3 * a.norm(dim=-1, keepdim=True) * torch.nn.functional.normalize(torch.randn(3, 8, dtype=D), dim=-1)
    torch.testing.assert_close(latents.spherical(a, b, 0.3), latents.linear(a, b, 0.3), rtol=0, atol=1e-5)


@pytest.mark.parametrize("b", [-torch.ones(4), torch.zeros(4)])
def test_no_great_circle(b):
    with pytest.raises(ValueError, match="no great circle"):
        latents.spherical(torch.ones(4), b, 0.5)


def test_manifold_holds_its_four_latents_and_keeps_their_length():
    z = torch.linalg.qr(torch.randn(6, 4, dtype=D)).Q.T  # four orthonormal latents
    grid = latents.manifold(z, 8)
    assert grid.shape == (8, 8, 6)
    for phi, other, k in ((0, 0, 0), (0, 2, 1), (2, 0, 2), (2, 2, 3)):  # quarter turns are two eighths
        torch.testing.assert_close(grid[phi, other], z[k])
    torch.testing.assert_close(grid.norm(dim=-1), torch.ones(8, 8, dtype=D))
    torch.testing.assert_close(grid[5], -grid[1])
    phi, other = math.pi / 4, 3 * math.pi / 4  # equation 19 of the paper, written out
    expected = math.cos(phi) * (math.cos(other) * z[0] + math.sin(other) * z[1]) + math.sin(phi) * (
        math.cos(other) * z[2] + math.sin(other) * z[3])
    torch.testing.assert_close(grid[1, 3], expected)
    assert latents.manifold(torch.randn(4, 2, 5), 4).shape == (4, 4, 2, 5)
    with pytest.raises(ValueError, match="four latents, got 3"):
        latents.manifold(z[:3])


def test_directions_find_the_shift_of_each_class():
    y = torch.tensor([0] * 300 + [1] * 100 + [2] * 200)
    shift = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, -2.0]], dtype=D)  # adds up to zero
    z = 5 + shift[y] + 0.01 * torch.randn(600, 2, dtype=D)
    found = latents.directions(z, y)
    torch.testing.assert_close(found, shift, rtol=0, atol=0.01)
    torch.testing.assert_close(found.sum(0), torch.zeros(2, dtype=D))  # unequal classes count alike
    with pytest.raises(ValueError, match="every class"):
        latents.directions(z, y * 2)
    with pytest.raises(ValueError, match="every latent"):
        latents.directions(z[1:], y)


@pytest.fixture(params=[fl.RealNVPImage, fl.Glow, fl.FlowPlusPlus])
def flow(request):
    return request.param((1, 8, 8), levels=16, scales=2, steps=1, hidden=4)


def test_one_scale_is_drawn_anew(flow):
    z = torch.full((500, 64), 9.0)
    body = flow.bijection.bijections[0]
    for scale, changed in ((0, 0), (1, 1), (-1, 1), (-2, 0)):
        parts = body.split(latents.resample(flow, z, scale))
        for k, part in enumerate(parts):
            if k == changed:
                assert abs(part.mean().item()) < 0.02 and part.std().item() == pytest.approx(1, abs=0.02)
            else:
                assert bool((part == 9).all())
    cold = body.split(latents.resample(flow, z, 0, temperature=0.1))[0]
    assert cold.std().item() == pytest.approx(0.1, abs=0.002)
    assert torch.equal(z, torch.full((500, 64), 9.0))
    assert flow.decode(latents.resample(flow, z[:3], 0)).shape == (3, 1, 8, 8)


def test_no_such_scale(flow):
    for scale in (2, -3):
        with pytest.raises(ValueError, match=f"the flow has 2 scales: it has no latents of scale {scale}"):
            latents.resample(flow, torch.zeros(64), scale)
    with pytest.raises(ValueError, match="no scales"):
        latents.resample(fl.RealNVP(4), torch.zeros(4), 0)


def test_interpolation_of_real_images_begins_and_ends_with_them(flow):
    x = torch.randint(16, (2, 1, 8, 8), dtype=torch.uint8)
    flow.initialize(torch.randint(16, (20, 1, 8, 8), dtype=torch.uint8))
    flow.double()
    path = flow.decode(latents.spherical(*flow.encode(x), torch.linspace(0, 1, 5)))
    assert path.shape == (5, 1, 8, 8) and torch.equal(path[0], x[0]) and torch.equal(path[-1], x[1])


def test_temperature_scales_the_latents_about_their_centre():
    """At temperature T the latents of a flow's samples have covariance T^2 I."""
    flow = fl.Flow(fl.StandardNormal(3), fl.AffineMap(2.0, 1.0))
    z = flow.encode(flow.sample(100_000, temperature=0.7))
    torch.testing.assert_close(torch.cov(z.T), 0.49 * torch.eye(3), rtol=0, atol=0.01)
    assert z.mean().abs().item() < 0.01
