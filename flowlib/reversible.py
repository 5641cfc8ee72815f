"""Backpropagation that keeps no activations: a flow's inputs can be computed again from its outputs.

Ordinary backpropagation through h_K = g_K(... g_1(h_0)) keeps every h_k in memory from the forward pass to the
backward pass, since the gradient of step k is taken at its input h_{k-1}. But the g_k of a flow are invertible. So only
h_K is kept, and the backward pass walks back from it, one step at a time:

    h_{k-1} = g_k^-1(h_k)           the input of step k, computed again, without gradients
    h_k, l_k = g_k(h_{k-1})         the step once more, now recorded by autograd, for this one step
    dL/dh_{k-1}, dL/dtheta_k        its vector-Jacobian product with dL/dh_k and dL/dl_k; then the record is dropped

(l_k is the step's log-determinant, theta_k its parameters.) At any time the activations of one step are in memory,
however deep the chain is, for one opposite map and one map more in time. It is right only if a step gives the second
time what it gave the first time: no random numbers, and nothing that depends on the batch as a whole.
"""
from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .core import Bijection, Compose, Inverse

__all__ = ["Reversible"]


def _state(module: nn.Module, prefix: str = "") -> list[tuple[str, Tensor]]:
    """All parameters and buffers by name, those of tied modules as often as they are found. It runs for every layer in
    every pass, and takes a quarter of the time of `named_parameters` and `named_buffers`."""
    own = module._parameters, module._buffers
    found = [(prefix + name, tensor) for named in own for name, tensor in named.items() if tensor is not None]
    for name, child in module._modules.items():
        if child is not None:
            found += _state(child, f"{prefix}{name}.")
    return found


@dataclass
class _Step:
    """A bijection in the direction that it is run in, with the parameters and buffers of that run."""

    f: Bijection
    inverse: bool  # whether it is run from data to latent
    state: list[tuple[str, Tensor]]

    @property
    def trained(self) -> list[Tensor]:
        """Those that a gradient is wanted for."""
        return [tensor for _, tensor in self.state if tensor.requires_grad]

    def maps(self) -> tuple[Callable, Callable]:
        """The map of the step and the opposite one, with the state of the run. `functional_call` lends a module its
        parameters for the time of a forward pass; by the backward pass it has others, and has to be lent them anew."""
        if all(now is then for (_, now), (_, then) in zip(_state(self.f), self.state, strict=True)):
            maps = self.f.forward, self.f.inverse
        else:
            state, backwards = dict(self.state), Inverse(self.f)
            lent = {f"bijection.{name}": tensor for name, tensor in self.state}
            maps = (lambda *args: functional_call(self.f, state, args),
                    lambda *args: functional_call(backwards, lent, args))
        return (maps[1], maps[0]) if self.inverse else maps


def _random_state(device: torch.device) -> list[Tensor]:
    """Where torch's random numbers stand, on the CPU and on the device of the values."""
    device_module = [torch.get_device_module(device)] if device.type not in ("cpu", "meta") else []
    return [torch.get_rng_state(), *(module.get_rng_state() for module in device_module)]


def _refuse_random(before: list[Tensor], device: torch.device) -> None:
    if not all(map(torch.equal, before, _random_state(device))):
        raise ValueError("a layer of a Reversible (save_memory=True) drew random numbers, which it would draw anew in "
                         "the backward pass: put dropout into eval mode, or use Compose (save_memory=False)")


def _autocast(device: str) -> Callable[[], AbstractContextManager]:
    """The present setting of autocast, to come back to."""
    if not torch.amp.is_autocast_available(device):  # the meta device, say
        return nullcontext
    return partial(torch.autocast, device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))


class _Chain(torch.autograd.Function):
    """All steps of a chain as one operation of autograd, of which only the last output is kept."""

    @staticmethod
    def forward(ctx, steps, value, context, *params):
        with torch.no_grad():
            random, log_det = _random_state(value.device), 0
            for step in steps:
                run = step.f.inverse if step.inverse else step.f.forward
                value, term = run(value, context)
                log_det = log_det + term
            _refuse_random(random, value.device)
        ctx.steps = steps
        ctx.autocast = _autocast(value.device.type)
        # Parameters and buffers too, so that autograd raises if they are changed in place before the backward pass.
        ctx.save_for_backward(value, context, *(tensor for step in steps for _, tensor in step.state))
        return value, log_det

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, grad_log_det):
        value, context, *_ = ctx.saved_tensors  # h_K
        random = _random_state(value.device)
        grads, grad_context = [], None
        needs_context = context is not None and ctx.needs_input_grad[2]
        for step in reversed(ctx.steps):
            run, opposite = step.maps()
            params = step.trained
            with ctx.autocast():
                with torch.no_grad():
                    before = opposite(value, context)[0]  # h_{k-1}
                with torch.enable_grad():
                    before.requires_grad_()
                    given = context.detach().requires_grad_(needs_context) if context is not None else None
                    after, log_det = run(before, given)  # h_k and l_k, as functions of h_{k-1}, the context and theta_k
            inputs = [before, *([given] if needs_context else []), *params]
            outputs = [(o, g) for o, g in ((after, grad), (log_det, grad_log_det)) if o.requires_grad]
            # unused: a step need not read the context, nor a bias that cancels in its log-determinant be in the record
            found = torch.autograd.grad([o for o, _ in outputs], inputs, [g for _, g in outputs], allow_unused=True)
            value, grad = before.detach(), found[0]
            if needs_context and found[1] is not None:
                grad_context = found[1] if grad_context is None else grad_context + found[1]
            grads = [*found[1 + needs_context :], *grads]
        _refuse_random(random, value.device)
        return None, grad, grad_context, *grads


class Reversible(Compose):
    r"""`Compose` whose training memory does not grow with its depth: activations are computed again, from the output,
    in the backward pass (Gomez et al. 2017, arXiv:1707.04585). Same values; gradients equal up to the rounding of the
    layers' inverses, which adds up with depth in float32. Cost of the backward pass: each layer's opposite map and the
    map itself once more.

    Differentiable once, by `backward` and `torch.autograd.grad`; not by the transforms of `torch.func`
    (`functional_call` works), nor in one graph of `torch.compile`, which breaks the graph here.

    Args:
        bijections: As for `Compose`; deterministic layers only.

    Raises:
        ValueError: As for `Compose`; a layer whose likelihood is not exact, or one that normalises by the batch. When
            it is run with gradients: a layer that draws random numbers, such as dropout in training mode.

    Example:
        >>> from flowlib import Affine, Coupling, Reversible
        >>> f = Reversible(*[Coupling(4, Affine(), swap=k % 2 == 1) for k in range(8)])
        >>> f.inverse(torch.ones(3, 4))[1].sum().backward()
    """

    def __init__(self, *bijections: Bijection):
        super().__init__(*bijections)
        for f in bijections:
            if f.likelihood != "exact":
                raise ValueError(f"Reversible computes its layers twice, and the second {type(f).__name__} would be "
                                 f"another one: its likelihood is a {f.likelihood}; put it after the Reversible")
            for part in f.modules():
                if getattr(part, "reads_batch", isinstance(part, nn.modules.batchnorm._BatchNorm)):
                    raise ValueError(f"Reversible cannot hold {type(part).__name__}: in training it normalises by the "
                                     "batch, which its opposite map does not know; use Compose")

    def _run(self, fs, inverse, value, context):
        steps = [_Step(f, inverse, _state(f)) for f in fs]
        try:
            return _Chain.apply(steps, value, context, *(p for step in steps for p in step.trained))
        except RuntimeError as error:
            if "functorch" not in str(error):
                raise
            raise RuntimeError("the transforms of torch.func (grad, vmap, jvp, ...) cannot pass a Reversible, which "
                               "recomputes its layers: build with save_memory=False, or use Compose") from error

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            return super().forward(z, context)
        return self._run(list(self.bijections), False, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            return super().inverse(x, context)
        return self._run(list(reversed(self.bijections)), True, x, context)
