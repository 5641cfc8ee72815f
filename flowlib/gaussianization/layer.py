"""The two layers of Gaussianization, each of which starts from data: a Gaussian mixture's CDF on every coordinate, and
a rotation."""
from __future__ import annotations

import torch
from torch import Tensor

from ..core import Bijection, Compose, Flow
from ..elementwise.base import Elementwise
from ..elementwise.mixture import GaussianMixtureCDF
from ..finite.householder import Householder, reflections
from ..images.norms import ActNorm

__all__ = ["DataRotation", "MarginalGaussianization", "layers_of", "refit"]

ROTATIONS = ("pca", "ica", "random")
ROWS = 10_000  # of a batch that independent components are found from, or that is mapped at once


class MarginalGaussianization(Elementwise):
    r"""To the latent, $z_i = \Phi^{-1}(F_i(x_i))$ with a Gaussian mixture's CDF for each coordinate: `Elementwise` of
    `GaussianMixtureCDF`, which `initialize` fits to its batch, without gradients. Then every coordinate is close to
    N(0, 1), whatever it was; their dependence stays as it is.

    Cost: O(D K) in `inverse` (density), a root search in `forward` (sampling).

    Args:
        dim: D.
        components: K, of each mixture.
        context_dim: Width of a context, or None; parameters are linear in it.

    Raises:
        ValueError: No dimension, no components, or a start from fewer than two rows, or rows that are not finite.

    Example:
        >>> layer, x = MarginalGaussianization(1), torch.rand(1000, 1)
        >>> z = layer.initialize(x); bool((z.std() - 1).abs() < 0.05)
        True
    """

    elementwise: GaussianMixtureCDF
    initialized: Tensor

    def __init__(self, dim: int, *, components: int = 20, context_dim: int | None = None):
        super().__init__(dim, GaussianMixtureCDF(components), context_dim=context_dim)
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        if inverse and not self.initialized:
            rows = data_rows(batch)
            self.params.copy_(self.elementwise.fit(rows))
            self.initialized.fill_(True)
        if context is not None or batch.ndim != 2:
            return super().initialize(batch, context, inverse)
        return torch.cat([super(MarginalGaussianization, self).initialize(rows, None, inverse)
                          for rows in batch.split(ROWS)])


class DataRotation(Householder):
    """A trainable rotation (or reflection) of D - 1 Householder reflections, which reach every one up to the signs of
    the latents. `initialize` turns it to axes of its batch. log|det| = 0. Cost: O(D^2) a row, both ways.

    Args:
        dim: D.
        kind: The axes: "pca", those of largest variance; "ica", those of the least Gaussian projections (symmetric
            FastICA, Hyvarinen 1999, doi:10.1109/72.761722, on whitened rows; an orthogonal matrix, so between
            correlated coordinates only close to it); "random".

    Raises:
        ValueError: No dimension, an unknown kind, or a start from fewer than two rows, or rows that are not finite.

    Example:
        >>> layer = DataRotation(2, "pca")
        >>> z = layer.initialize(torch.randn(1000, 2) @ torch.tensor([[1.0, 0.9], [0.0, 0.4]]))
        >>> bool(torch.corrcoef(z.T)[0, 1].abs() < 1e-4)
        True
    """

    initialized: Tensor

    def __init__(self, dim: int, kind: str = "pca"):
        if kind not in ROTATIONS:
            raise ValueError(f"kind must be one of {ROTATIONS}, got {kind!r}")
        super().__init__(dim, max(dim - 1, 1))
        self.kind = kind
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        if inverse and not self.initialized:
            self.vectors.copy_(reflections(axes(data_rows(batch).double(), self.kind)))
            self.initialized.fill_(True)
        return super().initialize(batch, context, inverse)


def data_rows(batch: Tensor) -> Tensor:
    """A batch as rows (N, D) that a layer can be fitted to."""
    rows = batch.reshape(-1, batch.shape[-1])
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        raise ValueError("a data-dependent start needs at least two rows, all of them finite")
    return rows


def axes(rows: Tensor, kind: str) -> Tensor:
    """Orthonormal axes of rows (N, D), as rows of a matrix (D, D)."""
    dim = rows.shape[1]
    if kind == "random":
        return torch.linalg.qr(torch.randn(dim, dim, dtype=rows.dtype, device=rows.device))[0]
    rows = rows - rows.mean(0)
    variances, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    variances, vectors = variances.flip(0), vectors.flip(1)  # the largest first; axes are columns
    if kind == "pca":
        return vectors.T
    white = rows[:ROWS] @ vectors / variances.clamp(min=1e-12).sqrt()
    turn = torch.linalg.qr(torch.randn(dim, dim, dtype=rows.dtype, device=rows.device))[0]
    for _ in range(100):  # to each row w E[x tanh(w x)] - E[1 - tanh(w x)^2] w, then all orthonormal again
        tanh = torch.tanh(white @ turn.T)
        moved = tanh.T @ white / len(white) - (1 - tanh.square()).mean(0)[:, None] * turn
        u, _, v = torch.linalg.svd(moved)
        turn = u @ v
    return turn @ vectors.T


def layers_of(dim: int, layers: int, components: int, rotation: str, context_dim: int | None = None) -> Compose:
    """From the data: standardise; then marginals, a rotation, marginals, a rotation, ..., marginals. A last rotation
    would do nothing, since N(0, I) stays itself under every one."""
    if layers < 1:
        raise ValueError(f"Gaussianization needs at least one layer, got {layers}")
    parts: list[Bijection] = []
    for k in range(layers):
        if k and dim > 1:
            parts.append(DataRotation(dim, rotation))
        parts.append(MarginalGaussianization(dim, components=components, context_dim=context_dim))
    return Compose(*parts, ActNorm(dim))


@torch.no_grad()
def refit(flow: Flow, x: Tensor) -> None:
    """Start every layer from data, whether it has been started or not."""
    started = [(flag, flag.clone()) for name, flag in flow.named_buffers() if name.endswith("initialized")]
    try:
        for flag, _ in started:
            flag.fill_(False)
        flow.initialize(x)
    except Exception:
        for flag, before in started:
            flag.copy_(before)
        raise
