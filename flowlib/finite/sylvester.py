"""The Sylvester flow: M planar directions at once, and a determinant of size M."""
from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..numerics import solve_monotone
from .conditioned import Conditioned, apply, check_dim
from .householder import compact

__all__ = ["Sylvester"]

VARIANTS = ("orthogonal", "householder", "triangular")


class Terms(NamedTuple):
    """The parameters of one map, or of one each."""

    q: Tensor  # (..., D, M)
    r: Tensor  # (..., M, M)
    r2: Tensor  # R~, (..., M, M)
    b: Tensor  # (..., M)
    t: Tensor  # (..., M): 1 + r r~ is 1 + t, or 1 / (1 - t) for a negative t


class Sylvester(Conditioned):
    r"""$x = z + Q R \tanh(\tilde R Q^\top z + b)$, Q (D, M) of orthonormal columns, R and $\tilde R$ upper triangular.

    By Sylvester's identity $\det(I_D + AB) = \det(I_M + BA)$, which is here a product: $\log|\det| = \sum_i \ln(1 +
    h'_i\, r_{ii} \tilde r_{ii})$ with $h' = 1 - \tanh^2$. The diagonals are $\tilde r_{ii} = a$ and $r_{ii} = c / (1 +
    (-ac)_+)$ with free a and c, so $r_{ii}\tilde r_{ii} > -1$ and the map is invertible for every value of its
    parameters. (Bounding both by tanh, as the paper's code does, would also keep a unit from stretching more than
    twofold.) Inverse: $v = Q^\top z$ solves M scalar equations, the last coordinate first, each increasing in its
    unknown; then $z = x + Q (v - Q^\top x)$.

    Q is M columns of: "orthogonal", a product of M reflections, which reaches every Q up to the signs of its columns;
    "householder", a product of as many reflections as you choose; "triangular", the identity (with `flip`, the reversed
    identity: alternate them). Reflections are orthonormal to rounding whatever their vectors, and smooth in them. (A QR
    factorisation is neither: LAPACK's columns change sign where an entry does, and the gradient is infinite at a
    singular matrix, which training crosses if M = D. The paper's iterative orthogonalisation may not converge.)

    Cost: O(D M + M^2) a row, both ways, and M root searches in turn in `inverse` (density); Q itself costs O(D M^2).

    Args:
        dim: D.
        hidden: M, at most D.
        variant: How Q is made.
        context_dim: Width of a context from which one linear map reads all parameters (amortised), or None.
        reflections: Number of reflections of the "householder" variant.
        flip: For the "triangular" variant.

    Raises:
        ValueError: An unknown variant, or M not in 1..D.

    Papers: van den Berg et al. (2018), arXiv:1803.05649, theorem 1 and section 3.

    Example:
        >>> from flowlib import Sylvester
        >>> x, log_det = Sylvester(5, hidden=2)(torch.zeros(7, 5)); log_det.shape
        torch.Size([7])
    """

    upper: Tensor
    frame: Tensor

    def __init__(self, dim: int, hidden: int, variant: str = "orthogonal", *, context_dim: int | None = None,
                 reflections: int = 4, flip: bool = False):
        check_dim(dim)
        if variant not in VARIANTS:
            raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
        if not 1 <= hidden <= dim:
            raise ValueError(f"hidden must lie in 1..{dim}, got {hidden}")
        m = hidden
        for_q = dim * {"orthogonal": m, "householder": reflections, "triangular": 0}[variant]
        sizes = [for_q, m * (m + 1), m]  # Q, the two triangles, b
        start = torch.randn(sum(sizes))
        start[for_q:] /= math.sqrt(m)
        super().__init__(dim, start, context_dim)
        self.hidden, self.variant, self.sizes = m, variant, sizes
        rows, columns = torch.triu_indices(m, m)
        self.register_buffer("upper", rows * m + columns)  # places of an upper triangle in a flat matrix
        self.register_buffer("frame", torch.eye(dim).flip(-1)[:, :m] if flip else torch.eye(dim)[:, :m])

    def _terms(self, params: Tensor) -> Terms:
        q, triangles, b = params.split_with_sizes(self.sizes, -1)
        if self.variant == "triangular":
            q = self.frame.to(params.dtype)
        else:
            v, w = compact(q.unflatten(-1, (-1, self.dim)))
            rows = self.frame.mT.to(params.dtype)  # (M, D)
            q = (rows - (rows @ v.mT) @ w).mT
        m, flat = self.hidden, triangles.unflatten(-1, (2, -1))
        full = flat.new_zeros(*flat.shape[:-1], m * m).index_copy(-1, self.upper, flat).unflatten(-1, (m, m))
        r, r2 = full.unbind(-3)
        c = r.diagonal(dim1=-2, dim2=-1)
        t = c * r2.diagonal(dim1=-2, dim2=-1)
        return Terms(q, r.diagonal_scatter(c / (1 - t.clamp(max=0)), 0, -2, -1), r2, b, t)

    @staticmethod
    def _log_det(a, h, t):
        # 1 + sech^2(a) r r~ = h^2 + sech^2(a) (1 + r r~): positive terms, nothing cancels, as sech^2 = 1 - h^2 would
        room = torch.where(t > 0, 1 + t, 1 / (1 - t.clamp(max=0)))  # one branch: at 0 both slopes would add up
        return torch.addcdiv(h * h, room, a.clamp(-40.0, 40.0).cosh().square()).log().sum(-1)

    def _forward(self, z, params):
        q, r, r2, b, t = self._terms(params)
        a = apply(r2, apply(q.mT, z)) + b
        h = torch.tanh(a)
        return z + apply(q, apply(r, h)), self._log_det(a, h, t)

    def _inverse(self, x, params):
        q, r, r2, b, t = self._terms(params)
        y = apply(q.mT, x)  # = v + R tanh(R~ v + b): back-substitution, since row i holds v_i and later ones only
        v, a, h = [], [], []  # of the coordinates done, the first of these before
        for i in reversed(range(self.hidden)):
            done = slice(i + 1, None)
            # v_i + r_ii tanh(r~_ii v_i + offset) = target
            offset = b[..., i] + (r2[..., i, done] * torch.stack(v, -1)).sum(-1) if v else b[..., i]
            target = y[..., i] - (r[..., i, done] * torch.stack(h, -1)).sum(-1) if h else y[..., i]
            offset, slope, push = (value.expand_as(target) for value in (offset, r2[..., i, i], r[..., i, i]))
            reach = push.abs() + 1e-3 * (1 + target.abs())  # |v_i - target| <= |r_ii|, with room for rounding
            v.insert(0, solve_monotone(_one, target, target - reach, target + reach, slope, offset, push, check=False))
            a.insert(0, slope * v[0] + offset)
            h.insert(0, torch.tanh(a[0]))
        v, a, h = (torch.stack(values, -1) for values in (v, a, h))
        # v - y is the push undone; x - Q R h would multiply the error of v by the slope
        return x + apply(q, v - y), -self._log_det(a, h, t)


def _one(v, slope, offset, push):
    """v + push tanh(slope v + offset) and its derivative."""
    tanh = torch.tanh(slope * v + offset)
    return v + push * tanh, 1 + push * slope * (1 - tanh * tanh)
