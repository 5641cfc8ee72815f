"""What is minimised, as a module: its `forward` returns the loss of each sample in nats.

The objective, not the flow, is what the loop wraps for several processes or compiles: gradients are exchanged only
where the wrapped module's own `forward` was called, and a flow has other ways in (`rsample_and_log_prob`).

An objective may also have `initialize`, of the same arguments, which is called once before the first step, and
`set_step(step, steps)`, which is called before each: what changes on the way has to be a function of these two, so that
a resumed run goes on where it was.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NLL", "ReverseKL"]


class NLL(nn.Module):
    r"""The negative log-likelihood $-\log p(x; c)$ in nats, for maximum likelihood. Its mean is the KL divergence from
    the data to the model, up to the entropy of the data. Cost: one `inverse`.

    Args:
        flow: The flow to train.

    Example:
        >>> import torch; from flowlib import RealNVP
        >>> NLL(RealNVP(2))(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, flow: nn.Module):
        super().__init__()
        self.flow: Any = flow  # or whatever has a flow's methods

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """$-\\log p(x; c)$, of shape (B,)."""
        return -self.flow.log_prob(x, context)

    def initialize(self, x: Tensor, context: Tensor | None = None) -> None:
        """The flow's data-dependent start."""
        self.flow.initialize(x, context)


class ReverseKL(nn.Module):
    r"""$\ln q(x) + U(x)$ at draws x of the flow q, in nats. Its mean is $\mathrm{KL}(q \,\|\, e^{-U}/Z) - \ln Z$: it
    fits a flow to a density known up to its constant (Rezende and Mohamed 2015, arXiv:1505.05770, equation 15). No data
    are needed: the batch is the number of draws. Cost: one `forward` and one energy.

    Args:
        flow: The flow to train; its likelihood must be exact.
        energy: $U$, from x of shape (n, *event) to (n,), differentiable. A module's parameters are trained too.
        anneal: The factor $\beta$ of $U$ in training, from the share of the steps that are done, in [0, 1], to a
            number; 1 at the end. It starts small to keep a flow from settling on one mode (section 6). None: always 1.

    Example:
        >>> from flowlib import RealNVP
        >>> ReverseKL(RealNVP(2), lambda x: 0.5 * x.square().sum(-1))(5).shape
        torch.Size([5])
    """

    beta: Tensor

    def __init__(self, flow: nn.Module, energy: Callable[[Tensor], Tensor],
                 anneal: Callable[[float], float] | None = None):
        super().__init__()
        self.flow: Any = flow
        self.energy: Callable[[Tensor], Tensor] = energy
        self.anneal = anneal
        self.register_buffer("beta", torch.ones(()), persistent=False)  # a number would be compiled in, step by step

    def set_step(self, step: int, steps: int) -> None:
        """Take the factor of the energy after so many of so many steps."""
        if self.anneal is not None:
            self.beta.fill_(self.anneal(step / steps))

    def forward(self, n: int, context: Tensor | None = None) -> Tensor:
        """$\\ln q(x) + \\beta U(x)$ at n fresh draws, of shape (n,); (n, B) for a context of B rows."""
        x, log_q = self.flow.rsample_and_log_prob(n, context)
        return log_q + self.beta * self.energy(x)

    def initialize(self, n: int, context: Tensor | None = None) -> None:
        """The flow's data-dependent start, from the latent side: there are no data."""
        self.flow.bijection.initialize(self.flow.sample_latent(n, context), context, inverse=False)
