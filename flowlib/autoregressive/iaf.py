"""The inverse autoregressive flow: the layers of a MAF the other way round, so that sampling is the cheap direction."""
from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..bases import StandardNormal
from ..core import Compose, Flow, Inverse
from ..elementwise.affine import Affine
from ..elementwise.base import ElementwiseMap
from .layer import MaskedAutoregressive, turned

__all__ = ["IAF", "GatedAffine"]


class GatedAffine(ElementwiseMap):
    r"""To the latent of a MAF, and so to the sample of an IAF, $z = \sigma x + (1 - \sigma)\, m$ with a gate $\sigma$
    between 0 and 1: the step of Kingma et al. (2016, arXiv:1606.04934, equation 14), like the forget gate of an LSTM.

    $\ln dz/dx = \ln\sigma$: each step contracts. $\sigma = \operatorname{sigmoid}(2 + 4\tanh(\hat\sigma/4))$ stays
    above 0.1, so that the way back loses no digits. The map starts as $0.88\,x$: nearly open, as the paper advises.

    Example:
        >>> round(GatedAffine().inverse(torch.tensor([1.0]), torch.zeros(1, 2))[0].item(), 4)
        0.8808
    """

    n_params = 2

    @staticmethod
    def _unpack(params):
        """ln sigma and (1 - sigma) m."""
        raw, m = params.movedim(-1, 0).unbind()
        gate = 2 + 4 * torch.tanh(raw / 4)
        return F.logsigmoid(gate), torch.sigmoid(-gate) * m

    def forward(self, z: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """x and -ln sigma, elementwise; params hold the raw gate, then m."""
        log_gate, shift = self._unpack(params)
        return (z - shift) * (-log_gate).exp(), -log_gate

    def inverse(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        """z and ln sigma, elementwise."""
        log_gate, shift = self._unpack(params)
        return x * log_gate.exp() + shift, log_gate


class IAF(Flow):
    r"""Inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934): `Inverse(MaskedAutoregressive(...))` layers.
    In each, $x_i = (z_i - t_i(z_{<i}))\, e^{-s_i(z_{<i})}$ reads the noise and not the sample, so that all coordinates
    are drawn at once.

    Cost: sampling, with the density of the sample (`rsample_and_log_prob`), one network pass a layer. The density of
    anything else takes D steps a layer, which together do the work of one pass. That of a tensor that `sample` or
    `rsample_and_log_prob` gave is remembered and costs nothing, as long as it and the flow are as they were, and no
    gradient is wanted.

    Args:
        dim: D.
        layers: Number of layers, whose orders are natural and reversed in turn.
        hidden: Widths of each network's hidden layers.
        context_dim: Width of a context, or None.
        gated: The paper's gated step (`GatedAffine`) in place of the affine one.
        sampling: How the layers find the noise of foreign data: see `MaskedAutoregressive`.

    Example:
        >>> from flowlib import IAF
        >>> x, log_p = IAF(3).rsample_and_log_prob(5); x.shape, log_p.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    def __init__(self, dim: int, *, layers: int = 5, hidden: Sequence[int] = (64, 64), context_dim: int | None = None,
                 gated: bool = False, sampling: str = "units"):
        step = GatedAffine() if gated else Affine()
        super().__init__(StandardNormal(dim), Compose(*(
            Inverse(MaskedAutoregressive(dim, step, hidden=hidden, order=turned(k), context_dim=context_dim,
                                         sampling=sampling)) for k in range(layers))))

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, temperature: float = 1.0,
               generator: torch.Generator | None = None) -> Tensor:
        z = self.sample_latent(n, context, temperature, generator)
        x, log_det = self.bijection(z, context)
        return remember(self, x, context, self.base.log_prob(z) - log_det)

    def rsample_and_log_prob(self, n: int, context: Tensor | None = None,
                             generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        x, log_p = super().rsample_and_log_prob(n, context, generator)
        return remember(self, x, context, log_p), log_p

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        known = recall(self, x, context)
        return super().log_prob(x, context) if known is None else known

    forward = log_prob


DRAWN = WeakTensorKeyDictionary()  # sample -> whose it is, in which state, and its log-density; it dies with the sample


def remember(flow: Flow, x: Tensor, context: Tensor | None, log_p: Tensor) -> Tensor:
    """Note the log-density of a sample that the flow has just drawn; returns the sample."""
    if not torch.compiler.is_compiling() and (state := signature(flow, x, context)) is not None:
        DRAWN[x] = weakref.ref(flow), state, log_p.detach()
    return x


def recall(flow: Flow, x: Tensor, context: Tensor | None) -> Tensor | None:
    """The noted log-density, if flow, sample and context are still what they were and no gradient is wanted."""
    if torch.compiler.is_compiling() or not isinstance(x, Tensor) or x not in DRAWN:
        return None
    if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in flow.parameters())):
        return None
    whose, state, log_p = DRAWN[x]
    return log_p.clone() if whose() is flow and signature(flow, x, context) == state else None


def signature(flow: Flow, x: Tensor, context: Tensor | None) -> tuple | None:
    """What a sample's density depends on, as something to compare; None where tensors hold no numbers to look at.

    The sum of each parameter beside its version: a write through `.data` raises no version.
    """
    tensors = [t for t in (*flow.parameters(), *flow.buffers()) if t.is_floating_point()]
    try:
        sums = torch.stack([t.detach().sum(dtype=torch.float32) for t in tensors]).tolist()
        versions = [t._version for t in (*tensors, x)]
    except RuntimeError:  # on the meta device, or under vmap
        return None
    return id(context), None if context is None else context._version, versions, sums
