"""A variational autoencoder whose posterior is any flow: encoder, flow given the encoder's output, decoder, and the
bounds.

The posterior is an ordinary conditional `Flow`: over a standard Gaussian, first an affine map read from the context
(that alone is the usual diagonal Gaussian), then the layers of your choice, amortised by the same context or not.
"""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .bases import StandardNormal
from .core import Bijection, Compose, Flow
from .elementwise.affine import Affine
from .elementwise.base import Elementwise

__all__ = ["VAE", "LinearGaussian", "mlp", "posterior"]


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them, for encoders and decoders.

    No layer starts at zero, as the last one of `nets.MLP` does. The posterior starts from zero weights; were the
    encoder's outputs zero too, so would be the gradients of both, for ever.

    Args:
        widths: Inputs, hidden units, outputs.

    Example:
        >>> mlp(784, 300, 16)(torch.zeros(5, 784)).shape
        torch.Size([5, 16])
    """
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def posterior(dim: int, context_dim: int, *layers: Bijection) -> Flow:
    r"""$q(z|x)$: a diagonal Gaussian whose mean and log-scale (within $\pm 5$) are linear in the context, then the
    layers.

    Args:
        dim: Number of latents.
        context_dim: Width of the encoder's output.
        layers: Bijections over (dim,), none for the mean-field posterior.

    Example:
        >>> from flowlib import Planar
        >>> posterior(2, 8, Planar(2, context_dim=8)).sample(3, torch.zeros(5, 8)).shape
        torch.Size([3, 5, 2])
    """
    return Flow(StandardNormal(dim), Compose(Elementwise(dim, Affine(5.0), context_dim=context_dim), *layers))


class VAE(nn.Module):
    r"""$p(x) = \int p(x|z)\,p(z)\,dz$ with a standard Gaussian prior, a decoder for $p(x|z)$ and a flow for $q(z|x)$
    (Kingma and Welling 2014, arXiv:1312.6114; Rezende and Mohamed 2015, arXiv:1505.05770).

    Args:
        encoder: x (..., *event) to a context (..., C).
        flow: $q(z|x)$, from `posterior`; its likelihood must be exact.
        decoder: z (..., D) to the logits of x (..., *event), or to its mean.
        scale: None for binary x with logits; a number s for $x|z \sim N(\text{decoder}(z), s^2 I)$.

    Example:
        >>> vae = VAE(nn.Linear(6, 8), posterior(2, 8), nn.Linear(2, 6))
        >>> vae.elbo(torch.ones(5, 6)).shape
        torch.Size([5])
    """

    def __init__(self, encoder: nn.Module, flow: Flow, decoder: nn.Module, scale: float | None = None):
        super().__init__()
        self.encoder, self.flow, self.decoder, self.scale = encoder, flow, decoder, scale
        self.prior = StandardNormal(*flow.event_shape)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """ln p(x|z) in nats, of shape `z.shape[:-1]`."""
        out = self.decoder(z)
        x = x.expand(out.shape)
        if self.scale is None:
            terms = -F.binary_cross_entropy_with_logits(out, x, reduction="none")
        else:
            terms = -0.5 * ((x - out) / self.scale) ** 2 - math.log(self.scale) - 0.5 * math.log(2 * math.pi)
        return terms.flatten(z.ndim - 1).sum(-1)

    def terms(self, x: Tensor, n: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        r"""n draws of $\ln p(x|z)$, $\ln p(z)$ and $\ln q(z|x) = \ln q_0(z_0|x) - \sum_t \ln|\det|$, each (n, B), in
        nats.

        The three terms of the bound with a flow: ELBO $= E[\ln p(x|z) + \ln p(z) - \ln q(z|x)]$. No closed-form KL is
            used, so
        that the same line holds for every posterior.
        """
        z, log_q = self.flow.rsample_and_log_prob(n, self.encoder(x))
        return self.log_likelihood(x, z), self.prior.log_prob(z), log_q

    def elbo(self, x: Tensor, n: int = 1) -> Tensor:
        """The evidence lower bound of each x, (B,) nats: the mean of n draws."""
        log_x, log_z, log_q = self.terms(x, n)
        return (log_x + log_z - log_q).mean(0)

    def importance_weighted(self, x: Tensor, n: int = 100) -> Tensor:
        r"""$\ln \tfrac1n\sum_i p(x|z_i)\,p(z_i)/q(z_i|x)$ of each x, (B,) nats: a lower bound in the mean that rises
        with n towards ln p(x) (Burda et al. 2016, arXiv:1509.00519)."""
        log_x, log_z, log_q = self.terms(x, n)
        return torch.logsumexp(log_x + log_z - log_q, 0) - math.log(n)

    def forward(self, x: Tensor) -> Tensor:
        """The loss -ELBO of each x, (B,) nats: an objective for `train.fit`."""
        return -self.elbo(x)


class LinearGaussian:
    r"""$z \sim N(0, I)$, $x|z \sim N(Wz, s^2 I)$: the model whose every quantity has a formula, to hold approximations
    to.

    $p(x) = N(0, WW^\top + s^2 I)$ and $p(z|x) = N(\Lambda^{-1} W^\top x/s^2, \Lambda^{-1})$ with $\Lambda = I + W^\top
    W/s^2$. The best diagonal posterior misses it by $\tfrac12(\sum_i\ln\Lambda_{ii} - \ln\det\Lambda)$ nats, whatever
    x.

    Args:
        weights: W, (E, D).
        scale: s.

    Example:
        >>> LinearGaussian(torch.eye(2)).mean_field_gap()
        tensor(0.)
    """

    def __init__(self, weights: Tensor, scale: float = 1.0):
        self.weights, self.scale = weights, scale
        eye = torch.eye(weights.shape[1], dtype=weights.dtype)
        self.precision = eye + weights.T @ weights / scale**2

    @property
    def prior(self) -> torch.distributions.Independent:
        """p(z)."""
        zeros = self.weights.new_zeros(self.weights.shape[1])
        return torch.distributions.Independent(torch.distributions.Normal(zeros, 1.0), 1)

    def simulate(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of p(x|z) for each z (..., D), (..., E)."""
        mean = z @ self.weights.T
        return mean + self.scale * torch.randn(mean.shape, generator=generator, dtype=z.dtype, device=z.device)

    def log_evidence(self, x: Tensor) -> Tensor:
        """ln p(x) in nats, (...)."""
        w = self.weights
        covariance = w @ w.T + self.scale**2 * torch.eye(len(w), dtype=w.dtype)
        return torch.distributions.MultivariateNormal(torch.zeros(len(w), dtype=w.dtype), covariance).log_prob(x)

    def posterior(self, x: Tensor) -> torch.distributions.MultivariateNormal:
        """p(z|x)."""
        mean = torch.linalg.solve(self.precision, self.weights.T @ x[..., None] / self.scale**2).squeeze(-1)
        return torch.distributions.MultivariateNormal(mean, precision_matrix=self.precision)

    def mean_field_gap(self) -> Tensor:
        """KL of the best diagonal posterior to p(z|x), in nats."""
        return 0.5 * (self.precision.diagonal().log().sum() - torch.logdet(self.precision))
