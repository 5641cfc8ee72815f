"""What is special to the elementwise maps: the spline against the paper's formula, at the edges, and through two
derivatives."""
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from flowlib import Affine, ImageCoupling, LogisticMixtureCDF, RationalQuadraticSpline
from flowlib.elementwise.base import arrange


def drawn(bins, box=3.0, n=40):
    torch.manual_seed(bins)
    spline = RationalQuadraticSpline(bins, box)
    return spline, 1.5 * torch.randn(n, dtype=torch.float64), torch.randn(n, spline.n_params, dtype=torch.float64)


def by_the_paper(spline, z, params):
    """Durkan et al. (2019), equations 4 and 5, one number at a time."""
    k, box = spline.bins, spline.box
    if abs(z) >= box:
        return z, 0.0
    sizes = [2 * box * ((1 - spline.min_share) * raw.softmax(0) + spline.min_share / k)
             for raw in params[: 2 * k].split(k)]
    (x_knots, y_knots) = (torch.cat([torch.zeros(1), s.cumsum(0)]) - box for s in sizes)
    inner = torch.nn.functional.softplus(params[2 * k :] + spline._slope_offset) + spline.min_slope
    slopes = torch.cat([torch.ones(1), inner, torch.ones(1)])
    i = int((x_knots[1:-1] <= z).sum())
    w, h, d0, d1 = sizes[0][i], sizes[1][i], slopes[i], slopes[i + 1]
    s, t = h / w, (z - x_knots[i]) / w
    below = s + (d1 + d0 - 2 * s) * t * (1 - t)
    x = y_knots[i] + h * (s * t**2 + d0 * t * (1 - t)) / below
    return x, (s**2 * (d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2) / below**2).log()


@pytest.mark.parametrize("bins", [1, 2, 8])
def test_the_spline_is_the_papers(bins):
    spline, z, params = drawn(bins)
    assert (z.abs() > spline.box).any()
    expected = torch.tensor([by_the_paper(spline, *row) for row in zip(z, params)], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(spline.forward(z, params), -1), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bins", [1, 8])
def test_the_spline_and_its_inverse_are_twice_differentiable(bins):
    spline, z, params = drawn(bins, n=6)
    z.requires_grad_(), params.requires_grad_()
    for method in (spline.forward, spline.inverse):
        assert gradcheck(method, (z, params)) and gradgradcheck(method, (z, params))


def test_the_spline_at_the_box_and_beyond():
    spline, _, params = drawn(8)  # 40 of them: the widths of some add up to less than the box
    z = torch.tensor([[-3.0], [3.0], [-3.001], [3.001], [1e30]], dtype=torch.float64).expand(5, 40)
    for method in (spline.forward, spline.inverse):
        x, log_slope = method(z, params.expand(5, 40, -1))
        torch.testing.assert_close(x, z)
        assert log_slope.abs().max() < 1e-12
        assert method(torch.tensor(torch.nan, dtype=torch.float64), params[0])[0].isnan()


def test_the_inverse_of_the_spline_has_gradients_at_a_flat_knot_after_a_steep_bin():
    """There the quadratic's discriminant rounds to zero, whose root has no slope."""
    spline, params = RationalQuadraticSpline(8, 3.0), 0.3 * torch.randn(1000, 23)
    params[:, 3], params[:, 11], params[:, 16:] = -5.0, 5.0, -30.0
    _, _, low, height, _, _ = spline._bin(torch.zeros(1000), params, 1)
    x = torch.nextafter(low + height, torch.tensor(-3.0)).requires_grad_()
    for grad in torch.autograd.grad(sum(t.sum() for t in spline.inverse(x, params.requires_grad_())), (x, params)):
        assert grad.isfinite().all()


def test_a_single_component_starts_as_the_identity():
    f, z = LogisticMixtureCDF(1), torch.linspace(-3, 3, 7)
    torch.testing.assert_close(f.forward(z, torch.zeros(7, f.n_params))[0], z)


def test_the_layout_of_a_networks_output():
    """Shipped weights depend on it."""
    output = torch.arange(6)
    assert arrange(output, 2, -1).tolist() == [[0, 3], [1, 4], [2, 5]]
    assert arrange(output[:, None, None], 2, -3).squeeze().tolist() == [[0, 1], [2, 3], [4, 5]]


def test_attention_makes_numbers_of_any_number():
    f = ImageCoupling((2, 4, 4), Affine(), hidden=8, mask="checkerboard", net="attention")
    for p in f.parameters():
        torch.nn.init.normal_(p)
    x, log_det = f(torch.randn(4, 2, 4, 4).clamp(-1, 1) * torch.finfo(torch.float32).max)
    assert not x.isnan().any() and log_det.isfinite().all()


@pytest.mark.parametrize("elementwise", [Affine(), RationalQuadraticSpline()])
def test_the_layout_of_the_parameters_does_not_matter(elementwise):
    z, params = torch.randn(5, 4), torch.randn(5, 4, elementwise.n_params)
    other = params.movedim(-1, 0).contiguous().movedim(0, -1)
    for a, b in zip(elementwise.inverse(z, params), elementwise.inverse(z, other)):
        torch.testing.assert_close(a, b)
