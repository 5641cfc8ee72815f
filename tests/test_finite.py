"""Finite flows where they are hard: parameters of size 60, M = 1 and M = D, one dimension, no room to invert."""
import math

import pytest
import torch

import flowlib as fl
from flowlib.finite.householder import reflect

D = torch.float64
MAKERS = {
    "Planar": lambda d: fl.Planar(d), "Radial": lambda d: fl.Radial(d), "Sylvester M=1": lambda d: fl.Sylvester(d, 1),
    "Sylvester M=D": lambda d: fl.Sylvester(d, d), "Sylvester householder": lambda d: fl.Sylvester(d, d, "householder"),
    "Sylvester triangular": lambda d: fl.Sylvester(d, d, "triangular"), "Householder": lambda d: fl.Householder(d, 5),
    "LinearIAF": lambda d: fl.LinearIAF(d), "ConvexLinearIAF": lambda d: fl.ConvexLinearIAF(d, 3),
}
ALL = pytest.mark.parametrize("name", MAKERS)
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


@DTYPES
@ALL
@pytest.mark.parametrize("dim", [1, 2, 5])
def test_any_parameter_value_inverts(name, dim, dtype):
    """Parameters up to 60: everything finite, and f(f^-1(x)) - x no more than rounding z costs where the map is steep
    (a radial flow with alpha = e^-60 stretches by 10^24 at its centre: there no z is close enough)."""
    eps = torch.finfo(dtype).eps
    for seed in range(20):
        torch.manual_seed(seed)
        f = MAKERS[name](dim).to(dtype)
        with torch.no_grad():
            for p in f.parameters():
                p.copy_(60 * (2 * torch.rand_like(p) - 1))
        x = 3 * torch.randn(50, dim, dtype=dtype)
        z, log_det = f.inverse(x)
        again, forward_log_det = f(z)
        assert z.isfinite().all() and log_det.isfinite().all() and forward_log_det.isfinite().all()
        # 1e24 squared overflows
        slope = torch.linalg.matrix_norm(fl.checks.jacobian(lambda v, f=f: f(v)[0], z).nan_to_num(1e30), 2)
        allowed = 1000 * eps * (slope + 1) * z.norm(dim=-1).clamp(min=1.0)
        assert bool(((again - x).norm(dim=-1) <= allowed).all())


@DTYPES
def test_radial_next_to_its_limit(dtype):
    """beta -> -alpha: log-det as the form of ground truth that does not cancel, here in closed form at r = 0."""
    f = fl.Radial(3).to(dtype)
    for alpha_raw, sigma_raw in ((0.0, -60.0), (-60.0, 0.0), (-60.0, -60.0), (60.0, -60.0), (60.0, 60.0)):
        with torch.no_grad():
            f.params.copy_(torch.tensor([0.0, 0, 0, alpha_raw, sigma_raw]))
        z = torch.tensor([[0.0, 0, 0], [1e-3, 0, 0], [1.0, -2, 0.5], [30.0, 0, 1]], dtype=dtype)
        x, log_det = f(z)
        softplus = [math.log1p(math.exp(v)) for v in (alpha_raw, sigma_raw)]
        assert log_det[0].item() == pytest.approx(3 * (math.log(softplus[1]) - math.log(softplus[0])), rel=1e-5)
        assert x.isfinite().all() and log_det.isfinite().all()
        again, _ = f(f.inverse(x)[0])
        assert ((again - x).abs() / x.abs().clamp(min=1)).max() < 100 * torch.finfo(dtype).eps


@DTYPES
def test_radial_where_alpha_and_sigma_underflow(dtype):
    """With its centre at 0, where z has all the digits it needs, every x comes back, however steep the map is."""
    f = fl.Radial(3).to(dtype)
    x = torch.cat([torch.zeros(1, 3), 1e-20 * torch.randn(5, 3), 3 * torch.randn(50, 3)]).to(dtype)
    for alpha_raw, sigma_raw in ((-60.0, 60.0), (-200.0, 0.0), (0.0, -200.0), (-200.0, -200.0), (200.0, -200.0)):
        with torch.no_grad():
            f.params.copy_(torch.tensor([0.0, 0, 0, alpha_raw, sigma_raw]))
        z, log_det = f.inverse(x)
        again, forward_log_det = f(z)
        assert ((again - x).abs() / x.abs().clamp(min=1)).max() < 10 * torch.finfo(dtype).eps
        assert log_det.isfinite().all() and torch.allclose(log_det, -forward_log_det)


def test_radial_is_the_papers_formula():
    f = fl.Radial(4).double()
    z = torch.randn(100, 4, dtype=D)
    center, alpha, sigma = f._terms(f.params)
    beta = sigma - alpha
    r = (z - center).norm(dim=-1)
    h, slope = 1 / (alpha + r), -1 / (alpha + r) ** 2
    assert torch.allclose(f(z)[0], z + (beta * h)[:, None] * (z - center))
    assert torch.allclose(f(z)[1], 3 * torch.log1p(beta * h) + torch.log1p(beta * h + beta * slope * r))


@pytest.mark.parametrize("variant", ["orthogonal", "householder", "triangular"])
@pytest.mark.parametrize("context_dim", [None, 3])
def test_sylvester_has_orthonormal_columns_and_room_to_invert(variant, context_dim):
    f = fl.Sylvester(6, 4, variant, context_dim=context_dim).double()
    context = 10 * torch.randn(50, 3, dtype=D) if context_dim else None
    q, r, r2, _, _ = f._terms(f._params(context))
    assert torch.allclose(q.mT @ q, torch.eye(4, dtype=D).expand(*q.shape[:-2], 4, 4), atol=1e-12)
    diagonal = (r.diagonal(dim1=-2, dim2=-1) * r2.diagonal(dim1=-2, dim2=-1))
    assert diagonal.min() > -1 and torch.equal(r, r.triu()) and torch.equal(r2, r2.triu())


@pytest.mark.parametrize("variant", ["orthogonal", "householder"])
def test_sylvester_is_smooth_in_its_parameters(variant):
    """Where QR is not: an entry that changes its sign flips no column, and nothing is singular about a singular
    matrix."""
    torch.manual_seed(0)
    z = torch.randn(20, 2, dtype=D)
    for start in (torch.tensor([0.0, 1.0, 1.0, 0.3]), torch.tensor([1.0, 1.0, 1.0, 1.0])):
        f = fl.Sylvester(2, 2, variant, reflections=2).double()
        images = []
        for step in (-1e-7, 0.0, 1e-7):
            with torch.no_grad():
                f.params[:4] = start.double()
                f.params[0] += step
            x, log_det = f(z)
            images.append(x.detach())
        assert (images[0] - images[2]).abs().max() < 1e-5
        f.zero_grad()
        (x.sum() + log_det.sum()).backward()
        assert f.params.grad.abs().max() < 1e3


def test_reflections_reach_every_orthonormal_frame():
    """M of them suffice, up to the signs of the columns: those of Householder's own QR."""
    frame = torch.linalg.qr(torch.randn(5, 3, dtype=D)).Q
    rest, vectors = frame.clone(), []
    for i in range(3):
        v = rest[:, i].clone()
        v[i] += 1.0 if v[i] >= 0 else -1.0
        vectors.append(v)
        rest = rest - 2 * torch.outer(v, v @ rest) / (v @ v)
    f = fl.Sylvester(5, 3).double()
    with torch.no_grad():
        f.params[:15] = torch.stack(vectors[::-1]).flatten()
    q = f._terms(f.params)[0]
    assert torch.allclose((q.mT @ frame).abs(), torch.eye(3, dtype=D), atol=1e-12)


def test_sylvester_log_det_does_not_cancel_in_single_precision():
    """Where tanh has flattened, 1 - tanh^2 has no digits left, and a large r r~ would multiply what is lost."""
    a, t = torch.linspace(-20, 20, 4001)[:, None], torch.tensor([3600.0])
    exact = (1 + t.double() / a.double().cosh().square()).log().sum(-1)
    assert (fl.Sylvester._log_det(a, torch.tanh(a), t) - exact).abs().max() < 2e-6


def test_sylvester_identity():
    """det(I_D + AB) = det(I_M + BA) (E12)."""
    a, b = torch.randn(6, 2, dtype=D), torch.randn(2, 6, dtype=D)
    large, small = torch.eye(6, dtype=D) + a @ b, torch.eye(2, dtype=D) + b @ a
    assert torch.linalg.det(large).item() == pytest.approx(torch.linalg.det(small).item())


def test_sylvester_with_one_unit_is_planar():
    f = fl.Sylvester(3, 1).double()
    z = torch.randn(20, 3, dtype=D)
    q, r, r2, b, _ = f._terms(f.params)
    w, u = (q * r2).squeeze(-1), (q * r).squeeze(-1)
    assert torch.allclose(f(z)[0], z + torch.tanh(z @ w + b)[:, None] * u)


def test_reflections_one_by_one():
    v, x = torch.randn(4, 3, dtype=D), torch.randn(10, 3, dtype=D)
    expected = x
    for row in v:
        expected = expected - 2 * (expected @ row)[:, None] * row / (row @ row)
    assert torch.allclose(reflect(x, v), expected) and torch.allclose(reflect(expected, v, backwards=True), x)
    assert torch.allclose(reflect(x, v.expand(10, 4, 3)), expected)


def test_a_zero_vector_reflects_nothing():
    v = torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=D, requires_grad=True)
    out = reflect(torch.ones(1, 2, dtype=D), v)
    assert out.tolist() == [[-1.0, 1.0]]
    out.sum().backward()
    assert v.grad.isfinite().all()


def test_a_product_of_reflections_is_not_symmetric():
    """So the inverse is the reverse order, and not the same map again; the determinant is (-1)^T (E60)."""
    f = fl.Householder(3, 2).double()
    q = f(torch.eye(3, dtype=D))[0].mT
    assert not torch.allclose(q, q.mT) and torch.linalg.det(q).item() == pytest.approx(1)
    q1 = fl.Householder(3, 1).double()(torch.eye(3, dtype=D))[0]
    assert torch.allclose(q1, q1.mT) and torch.linalg.det(q1).item() == pytest.approx(-1)


def test_an_isotropic_gaussian_does_not_notice_reflections():
    """E62, negative control: U sigma^2 I U^T = sigma^2 I."""
    q = fl.Householder(4, 3).double()(torch.eye(4, dtype=D))[0]
    assert torch.allclose(q @ q.mT, torch.eye(4, dtype=D))


def test_convex_combinations_need_triangular_matrices():
    """E68: the unit diagonal survives mixing, orthogonality does not."""
    f = fl.ConvexLinearIAF(5, 4).double()
    matrix = f._matrix(f.params)
    assert torch.equal(matrix.diagonal(), torch.ones(5, dtype=D)) and torch.equal(matrix, matrix.tril())
    assert torch.linalg.det(matrix).item() == pytest.approx(1)
    identity = torch.eye(2, dtype=D)
    assert torch.linalg.det(0.5 * identity + 0.5 * -identity) == 0


def test_a_full_covariance_from_a_diagonal_one():
    """A diagonal Gaussian and a unit triangular matrix make any covariance; the mean-field gap is 1.9949 nats."""
    index = torch.arange(8)
    covariance = 0.8 ** (index[:, None] - index).abs().double()
    gap = 0.5 * (torch.linalg.inv(covariance).diagonal().log().sum() + torch.logdet(covariance))
    assert gap.item() == pytest.approx(1.9949, abs=1e-4)
    factor = torch.linalg.cholesky(covariance)
    f = fl.LinearIAF(8).double()
    with torch.no_grad():
        f.params.copy_((factor / factor.diagonal()).flatten()[f.below])
    flow = fl.Flow(fl.StandardNormal(8), fl.Compose(fl.AffineMap(factor.diagonal().clone()), f)).double()
    x = torch.randn(10, 8, dtype=D)
    exact = torch.distributions.MultivariateNormal(torch.zeros(8, dtype=D), covariance)
    assert torch.allclose(flow.log_prob(x), exact.log_prob(x))


@pytest.mark.parametrize("broken", [
    lambda: fl.Radial(0), lambda: fl.Sylvester(3, 4), lambda: fl.Sylvester(3, 0),
    lambda: fl.Sylvester(3, 2, "diagonal"),
    lambda: fl.Householder(3, 0), lambda: fl.LinearIAF(0), lambda: fl.ConvexLinearIAF(3, 0),
])
def test_what_does_not_fit_is_refused(broken):
    with pytest.raises(ValueError):
        broken()


@pytest.mark.parametrize("size", [1e-38, 1e-22, 1e20, 1e38])
@pytest.mark.parametrize("make", [lambda: fl.Householder(3, 2), lambda: fl.Sylvester(3, 3),
                                  lambda: fl.Sylvester(3, 3, "householder")],
                         ids=["Householder", "Sylvester", "Sylvester householder"])
def test_reflections_of_vectors_whose_squares_under_or_overflow(make, size):
    f = make()
    vectors = f.vectors if isinstance(f, fl.Householder) else f.params[: f.sizes[0]].unflatten(0, (-1, 3))
    with torch.no_grad():
        matrix = f._terms(f.params).q if isinstance(f, fl.Sylvester) else f(torch.eye(3))[0]
        vectors.mul_(size)
        scaled = f._terms(f.params).q if isinstance(f, fl.Sylvester) else f(torch.eye(3))[0]
    assert (scaled - matrix).abs().max() < 2e-6 and (scaled @ scaled.mT - torch.eye(3)).abs().max() < 1e-6


@pytest.mark.parametrize("x", [2e19, 1e30])
def test_radial_where_a_square_overflows(x):
    f = fl.Radial(2)
    z, log_det = f.inverse(torch.tensor([[x, x]]))
    again, forward_log_det = f(z)
    assert torch.allclose(log_det, -forward_log_det) and log_det.abs() < 1  # far away it is a translation
    assert x > 1e28 or torch.allclose(again, torch.tensor([[x, x]]))
    assert not fl.Flow(fl.StandardNormal(2), f).log_prob(torch.tensor([x, x])).isnan()


HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


@HALF
@pytest.mark.parametrize("name", [*MAKERS, "Rotation", "Linear"])
def test_half_precision_is_single_precision_rounded(name, dtype):
    make = MAKERS.get(name) or {"Rotation": fl.Rotation,
                                "Linear": lambda d: fl.Linear(torch.eye(d) + 0.2 * torch.ones(d, d))}[name]
    f = make(3).to(dtype)
    x = torch.randn(20, 3).to(dtype)
    rounded = [f(x), f.inverse(x)]
    exact = f.float()
    for (value, log_det), (wanted, wanted_log_det) in zip(rounded, (exact(x.float()), exact.inverse(x.float()))):
        assert value.dtype == log_det.dtype == dtype
        eps = torch.finfo(dtype).eps * (20 if name == "Rotation" else 1)  # its matrix is rounded before the product
        assert torch.allclose(value.float(), wanted, rtol=eps, atol=eps)
        assert torch.allclose(log_det.float(), wanted_log_det, rtol=eps, atol=eps)


def test_amortised_parameters_start_near_the_static_ones():
    """A tenth of torch's own law for the weights, and the static start as bias."""
    torch.manual_seed(0)
    f = fl.Planar(200, context_dim=4)
    assert 0.09 * 0.5 < f.linear.weight.abs().max() <= 0.1 * 0.5
    assert f.linear.bias.std().item() == pytest.approx(200**-0.5, rel=0.2)


def test_the_room_of_sylvester_has_slope_one_where_its_branches_meet():
    t = torch.zeros(1, dtype=D, requires_grad=True)
    [slope] = torch.autograd.grad(fl.Sylvester._log_det(torch.zeros(1, dtype=D), torch.zeros(1, dtype=D), t), t)
    assert slope.item() == pytest.approx(1.0)
