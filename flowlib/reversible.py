"""Backpropagation that keeps no activations: a flow's inputs can be computed again from its outputs."""
from __future__ import annotations

import torch

from .core import Compose

__all__ = ["Reversible"]


class _Chain(torch.autograd.Function):
    """All layers of a chain in one node. Only the last output is kept; `backward` walks back layer by layer, computes each
    layer's input from its output by the opposite map, and differentiates that one layer."""

    @staticmethod
    def forward(ctx, steps, value, context, *params):
        with torch.no_grad():
            log_det = 0
            for step, _, _ in steps:
                value, term = step(value, context)
                log_det = log_det + term
        ctx.steps = steps
        ctx.autocast = torch.is_autocast_enabled(value.device.type), torch.get_autocast_dtype(value.device.type)
        ctx.save_for_backward(value, context, *params)
        return value, log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, grad_log_det):
        value, context, *_ = ctx.saved_tensors
        enabled, dtype = ctx.autocast
        grads, grad_context = [], None
        needs_context = context is not None and ctx.needs_input_grad[2]
        for step, opposite, params in reversed(ctx.steps):
            with torch.autocast(value.device.type, dtype=dtype, enabled=enabled):
                with torch.no_grad():
                    before = opposite(value, context)[0]
                with torch.enable_grad():
                    before.requires_grad_()
                    given = context.detach().requires_grad_(needs_context) if context is not None else None
                    after, log_det = step(before, given)
            inputs = [before, *([given] if needs_context else []), *params]
            outputs = [(o, g) for o, g in ((after, grad), (log_det, grad_log_det)) if o.requires_grad]
            found = torch.autograd.grad([o for o, _ in outputs], inputs, [g for _, g in outputs], allow_unused=True)
            value, grad = before.detach(), found[0]
            if needs_context and found[1] is not None:
                grad_context = found[1] if grad_context is None else grad_context + found[1]
            grads = [*found[1 + needs_context :], *grads]
        return None, grad, grad_context, *grads


class Reversible(Compose):
    r"""`Compose` whose training memory does not grow with its depth: activations are computed again, from the output, in the
    backward pass (Gomez et al. 2017, arXiv:1707.04585). Same values; gradients equal up to the rounding of the layers' inverses,
    which adds up with depth in float32. Differentiable once. Cost of the backward pass: each layer's opposite map and the
    map itself once more.

    Args:
        bijections: As for `Compose`; deterministic layers only (no batch normalisation, no dequantization).

    Example:
        >>> from flowlib import Affine, Coupling, Reversible
        >>> f = Reversible(*[Coupling(4, Affine(), swap=k % 2 == 1) for k in range(8)])
        >>> f.inverse(torch.ones(3, 4))[1].sum().backward()
    """

    def _run(self, fs, forward, value, context):
        own = [[p for p in f.parameters() if p.requires_grad] for f in fs]
        steps = [(f.forward, f.inverse, ps) if forward else (f.inverse, f.forward, ps) for f, ps in zip(fs, own)]
        return _Chain.apply(steps, value, context, *(p for ps in own for p in ps))

    def forward(self, z, context=None):
        return self._run(list(self.bijections), True, z, context)

    def inverse(self, x, context=None):
        return self._run(list(reversed(self.bijections)), False, x, context)
