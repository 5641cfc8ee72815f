"""Flows as the density estimators of `sbi`, the toolkit for simulation-based inference."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from .adapters import FromTransform
from .core import Compose, Flow
from .coupling.nsf import NSF
from .maps import AffineMap

try:
    from sbi.neural_nets.estimators import ConditionalDensityEstimator
except ImportError as error:
    raise ImportError("flowlib.sbi needs sbi: pip install sbi") from error

__all__ = ["FlowEstimator", "density_estimator"]


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows; 1 where all rows agree."""
    std = x.std(0)
    return x.mean(0), torch.where(std > 0, std, 1.0)


class FlowEstimator(ConditionalDensityEstimator):
    r"""$q(\theta|x)$ by a flow. Both sides are standardised, which sbi leaves to an estimator of one's own: x before
    the embedding network, $\theta$ (as real numbers) in the flow, whose last map leads onto the support.

    Args:
        model: Makes the flow, `model(dim, context_dim=C)`.
        theta: Parameters (N, D), of whose mean and standard deviation the flow starts.
        x: Simulations (N, ...).
        support: Where $\theta$ may lie, such as a prior's support: there is no mass outside. All of $R^D$ by default.
        embedding_net: Maps standardised x (B, ...) to (B, C) or (B, ...), which is flattened.

    Attributes:
        flow: The `Flow` over $\theta$ as it is, given the embedded x.
    """

    def __init__(self, model: Callable[..., Flow], theta: Tensor, x: Tensor, support: Constraint | None = None,
                 embedding_net: nn.Module | None = None):
        super().__init__(nn.Identity() if embedding_net is None else embedding_net, theta.shape[1:], x.shape[1:])
        for name, value in zip(("x_mean", "x_std"), _moments(x)):
            self.register_buffer(name, value)
        onto = FromTransform(constraints.real_vector if support is None else support)
        mean, std = _moments(onto.inverse(theta)[0])
        made = model(theta.shape[-1], context_dim=self._context(x[:2]).shape[-1])
        self.flow = Flow(made.base, Compose(made.bijection, AffineMap(std, mean), onto))

    @property
    def embedding_net(self) -> nn.Module:
        return self.net

    def _context(self, x):
        """Standardised and embedded: (..., *condition_shape) to (..., C)."""
        batch = x.shape[: x.ndim - len(self.condition_shape)]
        x = (x.reshape(-1, *self.condition_shape) - self.x_mean) / self.x_std
        return self.net(x).reshape(*batch, -1)

    def log_prob(self, input: Tensor, condition: Tensor) -> Tensor:
        """(sample, batch) log-densities of (sample, batch, D) given (batch, ...)."""
        self._check_condition_shape(condition)
        if input.ndim == 2:
            input = input[None]
        context = self._context(condition)
        batch = torch.broadcast_shapes(input.shape[:-1], context.shape[:-1])
        return self.flow.log_prob(input.expand(*batch, -1), context)

    def loss(self, input: Tensor, condition: Tensor, **kwargs) -> Tensor:
        """(batch,) negative log-densities."""
        return -self.log_prob(input[None], condition)[0]

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...], condition: Tensor) -> Tensor:
        """(*sample_shape, batch, D)."""
        return self.flow.distribution(self._context(condition)).sample(sample_shape)

    @torch.no_grad()
    def sample_and_log_prob(self, sample_shape: torch.Size | tuple[int, ...], condition: Tensor, **kwargs
                            ) -> tuple[Tensor, Tensor]:
        """Draws and their log-densities, in one pass."""
        return self.flow.distribution(self._context(condition)).rsample_and_log_prob(sample_shape)


def density_estimator(model: Callable[..., Flow] = NSF, prior: Distribution | None = None,
                      embedding_net: nn.Module | None = None) -> Callable[[Tensor, Tensor], FlowEstimator]:
    """What sbi takes as `density_estimator`: `NPE(prior, density_estimator=density_estimator(prior=prior))`.

    Args:
        model: Makes the flow, `model(dim, context_dim=C)`, such as a class of vector flows.
        prior: Its support holds all of the posterior's mass, so that sbi has nothing to reject.
        embedding_net: Maps standardised x (B, ...) to the context (B, C).

    Returns:
        A function of parameters (N, D) and simulations (N, ...) that makes the estimator.
    """
    def build(theta: Tensor, x: Tensor) -> FlowEstimator:
        return FlowEstimator(model, theta, x, None if prior is None else prior.support, embedding_net)
    return build
