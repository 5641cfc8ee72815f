"""The bounds of a VAE, against a model whose evidence has a formula."""
import math

import pytest
import torch
from torch import nn

import flowlib as fl
from flowlib.nets.mlp import MLP
from flowlib.vae import VAE, LinearGaussian, mlp, posterior

D = torch.float64


def exact_vae(model):
    """A VAE for the linear-Gaussian model with the exact posterior: affine in x, then a unit triangular matrix."""
    e, d = model.weights.shape
    covariance = torch.linalg.inv(model.precision)
    factor = torch.linalg.cholesky(covariance)
    encoder = nn.Linear(e, d, bias=False).double()
    iaf = fl.LinearIAF(d).double()
    flow = posterior(d, d, iaf).double()
    with torch.no_grad():
        unit = factor / factor.diagonal()
        iaf.params.copy_(unit.flatten()[iaf.below])
        # z = unit (diag(f) epsilon + m) has mean unit m: m = unit^-1 (posterior mean)
        encoder.weight.copy_(torch.linalg.solve(unit, covariance @ model.weights.T / model.scale**2))
        affine = flow.bijection.bijections[0]
        affine.params[:, 0] = 5 * torch.atanh(factor.diagonal().log() / 5)
        affine.shift.weight.copy_(torch.stack([torch.zeros(d, d), torch.eye(d)], 1).flatten(0, 1))
    decoder = nn.Linear(d, e, bias=False).double()
    with torch.no_grad():
        decoder.weight.copy_(model.weights)
    return VAE(encoder, flow, decoder, scale=model.scale).double()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return LinearGaussian(torch.randn(5, 3, dtype=D), scale=0.7)


def test_the_exact_posterior_makes_the_bound_constant(model):
    """E59: with q = p(z|x), ln p(x|z) + ln p(z) - ln q(z|x) is ln p(x) for every z."""
    x = torch.randn(4, 5, dtype=D)
    log_x, log_z, log_q = exact_vae(model).terms(x, 50)
    draws = log_x + log_z - log_q
    assert draws.std(0).max() < 1e-9 and torch.allclose(draws.mean(0), model.log_evidence(x))


def test_elbo_is_evidence_minus_kl(model):
    """A diagonal posterior: ELBO + KL(q || p(z|x)) = ln p(x), the KL in closed form."""
    torch.manual_seed(1)
    vae = VAE(nn.Linear(5, 4), posterior(3, 4), nn.Linear(3, 5, bias=False), scale=model.scale).double()
    with torch.no_grad():
        vae.decoder.weight.copy_(model.weights)
        nn.init.normal_(vae.flow.bijection.bijections[0].shift.weight, std=0.2)
    x = torch.randn(3, 5, dtype=D)
    with torch.no_grad():
        context = vae.encoder(x)
        affine = vae.flow.bijection.bijections[0]
        _, params = affine._broadcast(torch.zeros(3, 3, dtype=D), context)
        q = torch.distributions.MultivariateNormal(params[..., 1],
                                                   torch.diag_embed((10 * torch.tanh(params[..., 0] / 5)).exp()))
        kl = torch.distributions.kl_divergence(q, model.posterior(x))
        draws = torch.stack([sum(t) for t in [(a, b, -c) for a, b, c in [vae.terms(x, 40_000)]]])[0]
    error = draws.std(0) / math.sqrt(40_000)
    assert bool(((draws.mean(0) + kl - model.log_evidence(x)).abs() < 5 * error).all())
    assert bool((draws.mean(0) < model.log_evidence(x)).all())


def test_the_mean_field_gap_has_the_value_of_its_formula():
    """Correlation rho in two dimensions costs -1/2 ln(1 - rho^2)."""
    rho = 0.8
    precision = torch.linalg.inv(torch.tensor([[1.0, rho], [rho, 1.0]], dtype=D))
    model = LinearGaussian(torch.eye(2, dtype=D))
    model.precision = precision
    assert model.mean_field_gap().item() == pytest.approx(-0.5 * math.log(1 - rho**2))
    assert model.mean_field_gap().item() == pytest.approx(0.5108, abs=1e-4)


def test_importance_weighting_rises_towards_the_evidence(model):
    torch.manual_seed(2)
    vae = VAE(nn.Linear(5, 4), posterior(3, 4), nn.Linear(3, 5, bias=False), scale=model.scale).double()
    with torch.no_grad():
        vae.decoder.weight.copy_(model.weights)
        x = 0.5 * torch.randn(200, 5, dtype=D)
        means = [vae.importance_weighted(x, n).mean().item() for n in (1, 10, 100, 1000)]
    evidence = model.log_evidence(x).mean().item()
    assert means == sorted(means) and means[-1] < evidence + 0.02 and evidence - means[-1] < 0.2 * (evidence - means[0])


@pytest.mark.parametrize("layers", [
    lambda: [], lambda: [fl.Planar(4, context_dim=8)], lambda: [fl.Radial(4, context_dim=8)],
    lambda: [fl.Sylvester(4, 2, context_dim=8)],
    lambda: [fl.Householder(4, 3, context_dim=8)], lambda: [fl.LinearIAF(4, context_dim=8)],
    lambda: [fl.ConvexLinearIAF(4, 3, context_dim=8)],
    lambda: [fl.Coupling(4, fl.Affine(), hidden=(8,), context_dim=8)],
], ids=["diagonal", "planar", "radial", "sylvester", "householder", "linear IAF", "convex linear IAF", "coupling"])
def test_every_flow_is_a_posterior(layers):
    from flowlib.train import fit

    torch.manual_seed(0)
    x = (torch.rand(64, 1, 4, 4) < 0.3).float()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(4, 16), nn.Unflatten(-1, (1, 4, 4)))
    vae = VAE(encoder, posterior(4, 8, *layers()), decoder)
    before = vae.elbo(x, 50).mean().item()
    history = fit(vae.flow, x, objective=vae, steps=60, batch_size=32, lr=1e-2)
    assert len(history.loss) == 60 and vae.elbo(x, 50).mean().item() > before
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters() if p.requires_grad)


def test_the_gradient_of_the_bound_is_that_of_its_value():
    """With the random numbers fixed, autograd against central differences, for encoder, flow and decoder at once."""
    torch.manual_seed(3)
    vae = VAE(nn.Linear(5, 8), posterior(3, 8, fl.Planar(3, context_dim=8), fl.Sylvester(3, 2, context_dim=8)),
              nn.Linear(3, 5), 0.7).double()
    x = torch.randn(4, 5, dtype=D)
    parameters = list(vae.parameters())
    direction = [torch.randn_like(p) for p in parameters]

    def loss(step):
        torch.manual_seed(4)
        moved = {name: p + step * d for (name, p), d in zip(vae.named_parameters(), direction)}
        return torch.func.functional_call(vae, moved, (x,)).mean()

    gradient = torch.autograd.grad(loss(0.0), parameters)
    along = sum((g * d).sum() for g, d in zip(gradient, direction)).item()
    assert along == pytest.approx(((loss(1e-5) - loss(-1e-5)) / 2e-5).item(), rel=1e-6) and abs(along) > 1e-2


def test_at_the_exact_posterior_the_decoder_gets_the_gradient_of_the_evidence(model):
    """There the gradient of the bound in the model's own parameters is that of ln p(x), in the mean."""
    torch.manual_seed(5)
    vae, x = exact_vae(model), torch.randn(1, 5, dtype=D)
    weights = model.weights.clone().requires_grad_()
    (expected,) = torch.autograd.grad(LinearGaussian(weights, model.scale).log_evidence(x).sum(), weights)
    draws = 40_000
    found = torch.autograd.grad(vae.elbo(x, draws).sum(), vae.decoder.weight)[0]
    assert torch.allclose(found, expected, atol=0.05 * expected.abs().max().item())


def test_the_encoder_learns_from_the_first_step():
    """Negative control: behind an encoder whose outputs start at zero, zero weights stay zero, and the posterior never
    sees x."""
    torch.manual_seed(6)
    x, moves = (torch.rand(32, 16) < 0.3).float(), {}
    for name, encoder in (("mlp", mlp(16, 12, 8)), ("zero", MLP(16, 8, (12,)))):
        vae = VAE(encoder, posterior(3, 8), mlp(3, 12, 16))
        optimizer = torch.optim.SGD(vae.parameters(), lr=0.1)
        before = [p.detach().clone() for p in encoder.parameters()]
        for _ in range(20):
            optimizer.zero_grad()
            vae(x).mean().backward()
            optimizer.step()
        moves[name] = max((p - q).abs().max().item() for p, q in zip(encoder.parameters(), before))
    assert moves["mlp"] > 1e-3 and moves["zero"] == 0
