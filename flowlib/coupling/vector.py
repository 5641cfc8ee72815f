"""The coupling layer: split the event, keep one part, move the other by an elementwise map whose parameters a network
reads from the part that stayed. Its Jacobian is triangular, its inverse is as cheap as itself, and the network may be
any."""
from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..elementwise.base import ElementwiseMap
from ..nets.mlp import MLP
from .halves import Halves

__all__ = ["Coupling"]


class Coupling(Halves):
    r"""$x_a = z_a,\quad x_b = g(z_b;\, \theta(z_a, c))$ for an elementwise map g and a conditioner $\theta$ (any
    network).

    $$\frac{\partial x}{\partial z} = \begin{pmatrix} I & 0 \\ * & \operatorname{diag} g' \end{pmatrix}, \qquad
    \log|\det| = \sum_{i \in b} \ln g'(z_i)$$

    The inverse reads the same parameters, since $x_a = z_a$. Cost: one pass of the network, both ways.

    Args:
        dim: D. The first D // 2 coordinates are kept, the others moved.
        elementwise: The map g: `Additive()`, `Affine()`, `RationalQuadraticSpline()`, ...
        hidden: Widths of the hidden layers of the usual network, an MLP with ReLU.
        swap: Keep the last D - D // 2 coordinates instead, and move the first (or what the mask does not keep).
        context_dim: Width of a context that the network also reads, or None.
        net: Another network: a function of (inputs, outputs, context_dim) that makes a module, which is called with
            x (..., inputs), and where there is one a context (..., context_dim) that broadcasts against it, and gives
            (..., outputs). A last layer that starts at zero makes the coupling start as the identity.
        mask: Another split: a boolean tensor (D,), True where a coordinate is kept; the network then reads all D, zeros
            where it is False.

    Raises:
        ValueError: D = 1 without a context: there is nothing to read from; what is no elementwise map or mask.

    Papers: Dinh et al. (2015), arXiv:1410.8516, section 3.1; Dinh et al. (2017), arXiv:1605.08803, section 3.2.

    Example:
        >>> import torch; from flowlib import Affine, Coupling
        >>> x, log_det = Coupling(4, Affine())(torch.ones(10, 4)); x.shape, log_det.shape
        (torch.Size([10, 4]), torch.Size([10]))
    """

    axis = -1

    def __init__(self, dim: int, elementwise: ElementwiseMap, *, hidden: Sequence[int] = (64, 64), swap: bool = False,
                 context_dim: int | None = None, net: Callable[[int, int, int | None], nn.Module] | None = None,
                 mask: Tensor | None = None):
        super().__init__()
        if dim < 1 or (dim == 1 and context_dim is None):
            raise ValueError("a coupling needs dim >= 2, or a context for dim 1; "
                             f"got dim={dim}, context_dim={context_dim}")
        self.event_shape = self.latent_shape = (dim,)
        self.context_dim = context_dim
        inputs, moved = self._divide(elementwise, mask, swap and dim > 1)
        outputs = moved * elementwise.n_params
        self.net = MLP(inputs, outputs, hidden, context_dim) if net is None else net(inputs, outputs, context_dim)

    def _read(self, kept, context):
        return self.net(kept) if self.context_shape is None else self.net(kept, context)
