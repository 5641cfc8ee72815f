"""The Sylvester flow: M planar directions at once, and a determinant of size M."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..numerics import solve_monotone
from .amortised import Amortised, check_dim
from .householder import compact

__all__ = ["Sylvester"]

VARIANTS = ("orthogonal", "householder", "triangular")


class Sylvester(Amortised):
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
    factorisation is neither: LAPACK's columns change sign where an entry does, and the gradient is infinite at a singular
    matrix, which training crosses if M = D. The paper's iterative orthogonalisation may not converge.)

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

    def _terms(self, value, context):
        """Q (..., D, M), R and R~ (..., M, M), b and t (..., M): 1 + r r~ is 1 + t, or 1 / (1 - t) for a negative t."""
        q, triangles, b = self._params(value, context).split_with_sizes(self.sizes, -1)
        if self.variant == "triangular":
            q = self.frame
        else:
            v, w = compact(q.unflatten(-1, (-1, self.dim)))
            rows = self.frame.mT  # (M, D)
            q = (rows - (rows @ v.mT) @ w).mT
        m, flat = self.hidden, triangles.unflatten(-1, (2, -1))
        full = flat.new_zeros(*flat.shape[:-1], m * m).index_copy(-1, self.upper, flat).unflatten(-1, (m, m))
        r, r2 = full.unbind(-3)
        c = r.diagonal(dim1=-2, dim2=-1)
        t = c * r2.diagonal(dim1=-2, dim2=-1)
        return q, r.triu(1) + torch.diag_embed(c / (1 + (-t).clamp(min=0))), r2, b, t

    @staticmethod
    def _times(matrix, vector):
        """One matrix for all vectors (..., N), or one each."""
        return vector @ matrix.mT if matrix.ndim == 2 else (matrix @ vector[..., None]).squeeze(-1)

    @staticmethod
    def _log_det(a, h, t):
        # 1 + sech^2(a) r r~ = h^2 + sech^2(a) (1 + r r~): positive terms, nothing cancels, as sech^2 = 1 - h^2 would
        room = (1 + t.clamp(min=0)) / (1 + (-t).clamp(min=0))
        return torch.addcmul(h * h, room, a.clamp(-40.0, 40.0).cosh().reciprocal().square()).log().sum(-1)

    def forward(self, z, context=None):
        with torch.autocast(z.device.type, enabled=False):
            q, r, r2, b, t = self._terms(z, context)
            a = self._times(r2, self._times(q.mT, z)) + b
            h = torch.tanh(a)
            return z + self._times(q, self._times(r, h)), self._log_det(a, h, t)

    def inverse(self, x, context=None):
        with torch.autocast(x.device.type, enabled=False):
            q, r, r2, b, t = self._terms(x, context)
            y = self._times(q.mT, x)  # = v + R tanh(R~ v + b)
            v, a, h = [], [], []  # in reverse: the last coordinate first
            for i in reversed(range(self.hidden)):
                known_v = (r2[..., i, i + 1 :] * torch.stack(v[::-1], -1)).sum(-1) if v else 0
                known_h = (r[..., i, i + 1 :] * torch.stack(h[::-1], -1)).sum(-1) if h else 0
                offset, target = known_v + b[..., i], y[..., i] - known_h
                offset, slope, push = torch.broadcast_tensors(offset, r2[..., i, i], r[..., i, i])
                offset, slope, push = (value.expand_as(target) for value in (offset, slope, push))
                middle, reach = target.detach(), push.detach().abs() + 1e-3 * (1 + target.detach().abs())
                v.append(solve_monotone(_one, target, middle - reach, middle + reach, slope, offset, push))
                a.append(slope * v[-1] + offset)
                h.append(torch.tanh(a[-1]))
            v, a, h = (torch.stack(values[::-1], -1) for values in (v, a, h))
            # v - y is the push undone; x - Q R h would multiply the error of v by the slope
            return x + self._times(q, v - y), -self._log_det(a, h, t)


def _one(v, slope, offset, push):
    """v + push tanh(slope v + offset) and its derivative."""
    tanh = torch.tanh(slope * v + offset)
    return v + push * tanh, 1 + push * slope * (1 - tanh * tanh)
