"""x from x + g(x) = z: Newton's method where the Jacobian is small, Anderson's acceleration where it is not; behind
both the plain step x - r, which cannot fail where g contracts."""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..core import InversionError

__all__ = ["Solution", "solve_contraction"]

STEPS = 300  # evaluations at most; so many that plain steps alone do for most contractions
BLIND = 40  # where no number can be looked at
MEMORY = 5  # of Anderson's acceleration, in steps


class Solution(NamedTuple):
    """A root, how well it solves its equation, and what the search cost."""

    x: Tensor  # (..., D)
    residual: Tensor  # (...), the length of x + g(x) - z
    steps: int  # evaluations of g


@torch.compiler.disable  # a search that looks whether it is done
@torch.no_grad()
def solve_contraction(g: Callable[[Tensor], tuple[Tensor, Tensor | None]], z: Tensor, lipschitz: float) -> Solution:
    r"""The root of $x + g(x) = z$ for $\|g(x) - g(y)\| \le L\,\|x - y\|$, $L < 1$, row by row. Without gradient.

    The residual is $r = x + g(x) - z$. Newton takes $x - (I + J)^{-1} r$; Anderson the combination of its last steps
    whose residual is least (Walker and Ni 2011, doi:10.1137/10078356X), regularised, since rows that are done have no
    steps left to combine. Where the new residual is not at most L times the least so far, the row goes back and takes
    the plain step $x - r$, for which that is certain: it converges from everywhere, and stops where rounding ends it.

    Args:
        g: x (..., D) -> g(x), and its Jacobian (..., D, D) for Newton's method, or None for Anderson's.
        z: (..., D), float32 or float64.
        lipschitz: L.

    Raises:
        InversionError: A residual above what rounding explains: g is no contraction, or z is not finite. Where no
            number can be looked at (under `vmap`, on the meta device) a fixed number of steps is made, and nothing is
            raised.

    Example:
        >>> solve_contraction(lambda x: (0.5 * x, 0.5 * torch.eye(1)), torch.tensor([3.0]), 0.5).x
        tensor([2.])
    """
    eps, dim = torch.finfo(z.dtype).eps, z.shape[-1]
    identity = torch.eye(dim, dtype=z.dtype, device=z.device)
    x, best, best_r, scale = z, z, torch.zeros_like(z), torch.ones_like(z[..., 0])
    least = torch.full_like(scale, torch.inf)
    history: list[tuple[Tensor, Tensor]] = []
    steps, idle = 0, 0
    while steps < STEPS:
        steps += 1
        value, jacobian = g(x)
        r = x + value - z
        size = _length(r)
        accepted = (size <= lipschitz * least) & (size < least)
        best, best_r = torch.where(accepted[..., None], x, best), torch.where(accepted[..., None], r, best_r)
        least = torch.where(accepted, size, least)
        scale = torch.where(accepted, 1 + _length(z.abs() + value.abs()), scale)
        try:
            idle = 0 if bool(accepted.any()) else idle + 1
            if idle == 2 or bool((least <= eps * scale).all()):
                break
        except RuntimeError:  # no number to look at
            if z.is_meta or steps == BLIND:
                break
        if jacobian is not None:
            quick = x - torch.linalg.solve(identity + jacobian, r[..., None])[..., 0]
        else:
            history = [*history, (x, r)][-MEMORY - 1 :]
            quick = _anderson(history)
        x = torch.where(accepted[..., None], quick, best - best_r)
    _raise_without_root(least, scale)
    return Solution(best, least, steps)


def _length(v):
    """Of vectors (..., D), also where the squares of their entries would overflow."""
    largest = v.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(v.dtype).tiny)
    return largest[..., 0] * torch.linalg.vector_norm(v / largest, dim=-1)


def _anderson(history):
    """The next point from the last ones and their residuals, x - r for the first."""
    x, r = history[-1]
    if len(history) == 1:
        return x - r
    moves, changes = (torch.stack([b - a for a, b in zip(column, column[1:])], -2) for column in zip(*history))
    gram = changes @ changes.mT  # (..., m, m)
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    ridge = 10 * torch.finfo(x.dtype).eps * trace + torch.finfo(x.dtype).tiny
    ridge = ridge[..., None, None] * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram + ridge, changes @ r[..., None])
    return x - r - ((moves - changes) * weights).sum(-2)


def _raise_without_root(least, scale):
    """InversionError where a residual is more than rounding explains, if there is a number to look at."""
    ratio = least / scale
    try:
        failed = ~(ratio <= torch.finfo(ratio.dtype).eps ** 0.5)
        if not bool(failed.any()):
            return
    except RuntimeError:
        return
    worst = least[failed].max().item()
    raise InversionError(f"x + g(x) = z was not solved at {int(failed.sum())} of {failed.numel()} places: the largest "
                         f"residual is {worst:.3g}")
