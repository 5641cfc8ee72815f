"""Planar flows where they are hard: no direction, no room, weights of size 120."""
import math

import pytest
import torch
import torch.nn.functional as F

import flowlib as fl

D = torch.float64


def planar(u, w, b=0.0, dtype=D):
    f = fl.Planar(len(u)).to(dtype)
    with torch.no_grad():
        f.params.copy_(torch.tensor([*u, *w, b], dtype=dtype))
    return f


def test_constraint_holds_whatever_the_parameters():
    """T3.22: 1 + h'(.) w.u-hat > 0 over 10^4 random draws; det is smallest where h' = 1."""
    f = fl.Planar(3, context_dim=7).double()
    with torch.no_grad():
        f.linear.weight.zero_()[:, :].add_(torch.eye(7, dtype=D))
        f.linear.bias.zero_()
    params = 3 * torch.randn(10_000, 7, dtype=D)
    u_hat, w, *_ = f._terms(params)
    assert f(torch.randn(10_000, 3, dtype=D), params)[1].isfinite().all()
    assert torch.allclose((w * u_hat).sum(-1), F.softplus((w * params[:, :3]).sum(-1)) - 1, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("wu", [120.0, -120.0])
def test_extreme_products(wu, dtype):
    f = planar([wu / 2, 1.0], [2.0, 0.0], 0.3, dtype)
    z = torch.tensor([[-0.15, 2.0], [0.0, 0.0], [3.0, -1.0], [-40.0, 5.0]], dtype=dtype)  # first row: w.z + b = 0
    x, log_det = f(z)
    again, _ = f(f.inverse(x)[0])
    assert x.isfinite().all() and log_det.isfinite().all()
    eps = torch.finfo(dtype).eps
    assert ((again - x).abs() / x.abs().clamp(min=1)).max() < 100 * eps  # rule 3: judged at x, see T3.26
    expected = math.log(120) if wu > 0 else -120.0  # ln softplus(w.u) where sech = 1
    assert log_det[0].item() == pytest.approx(expected, rel=1e-3 if wu > 0 else 1e-6)


def test_no_direction():
    """w = 0: a translation by u tanh(b)."""
    f = planar([1.0, -2.0], [0.0, 0.0], 0.5)
    z = torch.randn(5, 2, dtype=D)
    x, log_det = f(z)
    assert torch.allclose(x, z + torch.tensor([1.0, -2.0], dtype=D) * math.tanh(0.5)) and log_det.abs().max() < 1e-15
    assert torch.allclose(f.inverse(x)[0], z)
    x.sum().backward()
    assert f.params.grad.isfinite().all()


def test_the_log_det_is_the_plain_formula_where_that_is_safe():
    f = planar([0.7, -0.4], [1.2, 0.9], -0.2)
    z = torch.randn(50, 2, dtype=D)
    u_hat, w, b, *_ = f._terms(f.params)
    slope = 1 - torch.tanh(z @ w + b) ** 2
    assert torch.allclose(f(z)[1], (1 + slope * (w * u_hat).sum()).log(), atol=1e-12)


def test_density_of_ten_maps_on_a_uniform_base():
    """The exact inverse gives an exact density also outside of the image of the square: -inf."""
    torch.manual_seed(1)
    flow = fl.Flow(fl.Uniform(-torch.ones(2), torch.ones(2)), fl.Compose(*[fl.Planar(2) for _ in range(10)])).double()
    log_p = flow.log_prob(torch.tensor([[50.0, 50.0], [0.0, 0.0]], dtype=D))
    assert log_p[0] == -torch.inf and not log_p.isnan().any()
    assert fl.checks.round_trip_error(flow.bijection, torch.randn(1000, 2, dtype=D)) < 1e-9
    x = flow.sample(2000)
    assert flow.log_prob(x).isfinite().float().mean() > 0.999


def test_inverse_has_the_gradient_of_the_inverse_map():
    f = planar([0.7, -0.4], [1.2, 0.9], -0.2)
    z = torch.randn(6, 2, dtype=D)
    there = fl.checks.jacobian(lambda v: f(v)[0], z)
    back = fl.checks.jacobian(lambda v: f.inverse(v)[0], f(z)[0])
    assert torch.allclose(there @ back, torch.eye(2, dtype=D).expand(6, 2, 2), atol=1e-10)


def test_no_dimension():
    with pytest.raises(ValueError, match="dim"):
        fl.Planar(0)


@pytest.mark.parametrize("w", [1e-22, 1e-10, 1e10, 1e20])
def test_weights_whose_squares_under_or_overflow(w):
    """w.u_hat > -1 still, so the map is one to one: along the w axis x increases with z, by no less than its log-det says."""
    f = planar([-3.0 / w if w > 1 else -3.0, 0.5], [w, 0.0], 0.3, torch.float32)
    u_hat, w_, *_ = f._terms(f.params)
    t = f.params[0] * w_[0]  # a weight beyond 1e16 acts as 1e16, one below 1e-9 as none
    assert (w_ @ u_hat).item() == pytest.approx(0.0 if w < 1e-9 else F.softplus(t).item() - 1, abs=1e-5)
    z = torch.randn(50, 2) / max(w, 1.0)
    x, log_det = f(z)
    again = f(f.inverse(x)[0])[0]
    assert log_det.isfinite().all() and (again - x).abs().max() <= 1e-5 * x.abs().max()
    f(z)[0].sum().backward()
    assert f.params.grad.isfinite().all()
