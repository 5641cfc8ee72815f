"""MADE as a model of binary vectors: a product of Bernoullis, each given the bits before it. No flow: bits have no
density."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..arguments import number_of_draws
from ..core import check_tensor
from ..nets.made import MADE, places
from ..saving import Recorded

__all__ = ["BernoulliMADE", "OrderAgnostic"]


class BernoulliMADE(nn.Module, metaclass=Recorded):
    r"""$\ln P(x) = \sum_i \ln \operatorname{Bernoulli}\big(x_i;\, \sigma(\eta_i(x_{<i}))\big)$ for $x \in \{0, 1\}^D$
    (Germain et al. 2015, arXiv:1502.03509, equation 3), with all logits $\eta$ from one pass of a masked network.

    "Before i" means an order. One set of weights can serve several: an order says which weights of the first and the
    last layer are masked, and of no other. Trained on all of them in turn (`OrderAgnostic`, section 4.2), it is as many
    models in one, and their mean $\frac1K \sum_k P_k(x)$ is better than each (section 4.3).

    Cost: one pass of the network for each order; a sample takes D steps in one of them, which with a single hidden
    layer do the work of one pass together.

    Args:
        dim: D.
        hidden: Widths of the hidden layers.
        orders: K, number of orders: the natural one, and random ones.
        direct: Whether each logit also reads the bits before it directly (section 4.1): D^2 more weights, and a quicker
            start.

    Raises:
        ValueError: No dimension, no hidden layer, no order.

    Example:
        >>> from flowlib import BernoulliMADE
        >>> BernoulliMADE(3).log_prob(torch.tensor([[0.0, 1.0, 1.0]])).exp()  # at the start every bit is a fair coin
        tensor([0.1250], grad_fn=<ExpBackward0>)
    """

    rank: Tensor
    sees: Tensor
    knows: Tensor

    def __init__(self, dim: int, *, hidden: Sequence[int] = (500,), orders: int = 1, direct: bool = False):
        super().__init__()
        if orders < 1:
            raise ValueError(f"BernoulliMADE needs at least one order, got {orders}")
        self.event_shape = (dim,)
        self.net = MADE(dim, 1, hidden=hidden)
        self.direct = nn.Parameter(torch.zeros(dim, dim)) if direct else None
        rank = [places(dim, "random" if k else "natural") for k in range(orders)]
        self.register_buffer("rank", torch.stack(rank))  # place of each bit, (K, D)
        degrees = [torch.tensor(self.net.degrees(width)) for width in (hidden[0], hidden[-1])]
        self.register_buffer("sees", degrees[0], persistent=False)  # a unit of the first layer: places up to this one
        self.register_buffer("knows", degrees[1], persistent=False)  # a unit of the last: the same through all layers

    def _check_order(self, order: int | None) -> None:
        if order is not None and not 0 <= order < len(self.rank):
            raise ValueError(f"this BernoulliMADE has the orders 0 to {len(self.rank) - 1}, got {order}")

    def _hidden(self, before: Tensor) -> Tensor:
        """The last hidden layer from the sums of the first, (..., H)."""
        h = before.relu()
        for layer in self.net.layers[1:]:
            h = layer(h).relu()
        return h

    def logits(self, x: Tensor, order: int = 0) -> Tensor:
        """The logits of all bits, each read from the bits before it: (..., D) to (..., D)."""
        net, rank = self.net, self.rank[order]
        first, reads = net.layers[0], net.reads  # which reads nothing of a single bit
        seen = self.sees[:, None] >= rank[:reads]
        h = self._hidden(F.linear(x[..., :reads], first.weight * seen, first.bias))
        logits = F.linear(h, net.last.weight * (rank[:, None] > self.knows), net.last.bias)
        return logits if self.direct is None else logits + F.linear(x, self.direct * (rank[:, None] > rank))

    def log_prob(self, x: Tensor, order: int | None = None) -> Tensor:
        r"""$\ln P(x)$ in nats, (...), for bits x (..., D) of the model's floating-point dtype; -inf for what are no
        bits. The mean of P over all orders, or, where one is named, that of one.

        Raises:
            ValueError: Another shape or dtype, or an order that there is not.
        """
        check_tensor(x, "BernoulliMADE", self.net.last.weight.dtype, "bits")
        if x.shape[-1:] != self.event_shape:
            raise ValueError(f"BernoulliMADE expected bits of shape (..., {self.event_shape[0]}), got {tuple(x.shape)}")
        self._check_order(order)
        bits = (x == 0) | (x == 1)
        target = torch.where(bits, x, 0.0)
        logs = [-F.binary_cross_entropy_with_logits(self.logits(target, k), target, reduction="none").sum(-1)
                for k in (range(len(self.rank)) if order is None else [order])]
        mean = torch.logsumexp(torch.stack(logs), 0) - math.log(len(logs))
        return torch.where(bits.all(-1), mean, -torch.inf)

    forward = log_prob

    @torch.no_grad()
    def sample(self, n: int, order: int | None = None) -> Tensor:
        """n draws of bits (n, D), one bit after the other in the order named, or in one of them, drawn once.

        Raises:
            ValueError: No number of draws, or an order that there is not.
        """
        self._check_order(order)
        net, rank = self.net, self.rank[int(torch.randint(len(self.rank), ())) if order is None else order]
        x = net.last.weight.new_zeros(number_of_draws(n), len(rank))
        before = net.layers[0].bias.expand(len(x), -1)
        for place, i in enumerate(rank.argsort().tolist()):
            weights = net.last.weight[i] * (self.knows < place)  # no matter what the other units hold as yet
            logit = self._hidden(before) @ weights + net.last.bias[i]
            if self.direct is not None:
                logit = logit + x @ self.direct[i]  # bits to come are zero as yet
            x[:, i] = torch.bernoulli(logit.sigmoid())
            if i < net.reads:
                before = before + x[:, i, None] * (net.layers[0].weight[:, i] * (self.sees >= place))
        return x


class OrderAgnostic(nn.Module):
    r"""$-\ln P_k(x)$ in nats, where each step of the training takes the next order k: the objective that trains a
    `BernoulliMADE` on all of its orders. In evaluation it is $-\ln \frac1K \sum_k P_k(x)$.

    Args:
        model: The model to train.

    Example:
        >>> from flowlib import BernoulliMADE
        >>> OrderAgnostic(BernoulliMADE(3, orders=4))(torch.ones(5, 3)).shape
        torch.Size([5])
    """

    def __init__(self, model: BernoulliMADE):
        super().__init__()
        self.model, self.turn = model, 0

    def set_step(self, step: int, steps: int) -> None:
        """Take the order of this step."""
        self.turn = step % len(self.model.rank)

    def forward(self, x: Tensor) -> Tensor:
        """The loss of each row of bits, (B,)."""
        return -self.model.log_prob(x, self.turn if self.training else None)
