"""Conditioners: the neural networks that compute a layer's parameters. They need not be invertible."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as hooks

__all__ = ["MLP"]


class MLP(nn.Module):
    """A multilayer perceptron (..., inputs [+ context]) -> (..., outputs) with ReLU between its layers.

    The last layer starts at zero, so that a flow layer starts from fixed parameters (mostly the identity map), whatever
    its input: deep flows then start well-conditioned.

    Args:
        inputs: Width of x.
        outputs: Width of the result.
        hidden: Widths of the hidden layers.
        context_dim: Width of a context that is appended to x, or None.
    """

    def __init__(self, inputs: int, outputs: int, hidden: Sequence[int] = (64, 64), context_dim: int | None = None):
        super().__init__()
        widths = [inputs + (context_dim or 0), *hidden, outputs]
        layers: list[nn.Module] = []
        for a, b in zip(widths, widths[1:-1]):
            layers += [nn.Linear(a, b), nn.ReLU()]
        last = nn.Linear(widths[-2], outputs)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*layers, last)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters for x and, where the net was built with `context_dim`, a context that broadcasts against x's
        batch."""
        if context is not None:
            batch = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
            x = torch.cat([x.expand(*batch, -1), context.expand(*batch, -1)], -1)
        before = None
        for layer in self.layers:
            # in place where nobody can see it: what a hook was shown must not change afterwards
            hidden = type(layer) is nn.ReLU and type(before) is nn.Linear and not watched(before) and not watched(layer)
            x = F.relu_(x) if hidden else layer(x)
            before = layer
        return x


def watched(module: nn.Module) -> bool:
    """Whether any hook sees what comes out of a module."""
    own = (module._forward_hooks, module._backward_hooks, module._forward_pre_hooks, module._backward_pre_hooks)
    everywhere = (hooks._global_forward_hooks, hooks._global_backward_hooks, hooks._global_forward_pre_hooks,
                  hooks._global_backward_pre_hooks)
    return any(own) or any(everywhere)
