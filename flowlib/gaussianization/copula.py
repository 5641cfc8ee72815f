"""The Gaussian copula: any marginals, and the dependence of a correlated Gaussian. A flow of two layers."""
from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor, nn

from ..bases import StandardNormal
from ..core import Bijection, Compose, Flow
from ..images.norms import ActNorm
from ..numerics import full_precision, tame, wide
from .layer import MarginalGaussianization, data_rows, refit

__all__ = ["Correlation", "GaussianCopula"]


class Correlation(Bijection):
    r"""$x = L z$ with L lower triangular, rows of length one and a positive diagonal: of z ~ N(0, I) it makes N(0, R)
    with the correlation matrix $R = L L^\top$; every R has one L. $\log|\det| = \sum_i \ln L_{ii}$. Trainable by the
    ratios $L_{ij}/L_{ii}$, $j < i$; it starts at the identity. `initialize` takes R of its batch.

    Cost: O(D^2) a row, both ways.

    Args:
        dim: D.

    Raises:
        ValueError: No dimension, or a start from fewer than two rows, or rows that are not finite.

    Example:
        >>> layer = Correlation(2); z = layer.initialize(torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 0.0]]))
        >>> round(layer.matrix()[0, 1].item(), 4)
        -0.3273
    """

    initialized: Tensor
    rows_columns: Tensor

    def __init__(self, dim: int):
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be positive, got {dim}")
        self.dim = dim
        self.event_shape = self.latent_shape = (dim,)
        self.register_buffer("rows_columns", torch.tril_indices(dim, dim, offset=-1))
        self.ratios = nn.Parameter(torch.zeros(dim * (dim - 1) // 2))
        self.register_buffer("initialized", torch.tensor(False))

    def _factor(self):
        ratios = wide(self.ratios)
        full = torch.eye(self.dim, dtype=ratios.dtype, device=ratios.device).index_put(
            (self.rows_columns[0], self.rows_columns[1]), ratios)
        return full / torch.linalg.vector_norm(full, dim=1, keepdim=True)

    def matrix(self) -> Tensor:
        """The correlation matrix R, (D, D)."""
        factor = self._factor()
        return factor @ factor.T

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            factor = self._factor()
            x = tame(wide(z)) @ factor.T
        return x.to(z.dtype), factor.diagonal().log().sum().to(z.dtype).expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            factor, rows = self._factor(), tame(wide(x)).reshape(-1, x.shape[-1])
            z = torch.linalg.solve_triangular(factor, rows.T, upper=False).T.reshape(x.shape)
        return z.to(x.dtype), -factor.diagonal().log().sum().to(x.dtype).expand(x.shape[:-1])

    @torch.no_grad()
    def initialize(self, batch: Tensor, context: Tensor | None = None, inverse: bool = True) -> Tensor:
        if inverse and not self.initialized:
            rows = data_rows(batch).double()
            rows = (rows - rows.mean(0)) / rows.std(0, correction=0).clamp(min=1e-12)
            dim = rows.shape[1]
            matrix = rows.T @ rows / len(rows) + 1e-6 * torch.eye(dim, dtype=rows.dtype, device=rows.device)
            factor = torch.linalg.cholesky(matrix)
            ratios = factor / factor.diagonal()[:, None]
            self.ratios.copy_(ratios[self.rows_columns[0], self.rows_columns[1]])
            self.initialized.fill_(True)
        return super().initialize(batch, context, inverse)


class GaussianCopula(Flow):
    r"""A Gaussian copula: $z \sim N(0, I)$, $y = Lz \sim N(0, R)$, $x_i = F_i^{-1}(\Phi(y_i))$ with any marginals
    $F_i$, which here are Gaussian mixtures. By Sklar's theorem every law is marginals and a copula; this one has the
    copula of a Gaussian, and knows of dependence no more than R. With R = I the coordinates are independent.

    Cost: O(D^2 + D K) a row in density; a root search in sampling.

    Args:
        dim: D.
        components: K, of each marginal's mixture.

    Raises:
        ValueError: No dimension, or no components.

    Papers: Sklar (1959); Nelsen (2006), An Introduction to Copulas, doi:10.1007/0-387-28678-0.

    Example:
        >>> import torch; from flowlib import GaussianCopula
        >>> z = torch.randn(4000, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]])
        >>> round(GaussianCopula(2).fit(z.exp()).correlation[0, 1].item(), 1)  # exp changes the marginals alone
        0.6
    """

    bijection: Compose

    def __init__(self, dim: int, *, components: int = 20):
        super().__init__(StandardNormal(dim), Compose(
            Correlation(dim), MarginalGaussianization(dim, components=components), ActNorm(dim)))

    @property
    def correlation(self) -> Tensor:
        """R, (D, D)."""
        return cast("Correlation", self.bijection[0]).matrix()

    def fit(self, x: Tensor) -> Self:
        """Fit marginals and R to x (N, D), whether they have been or not; returns the flow.

        Raises:
            ValueError: Rows of another width or dtype, fewer than two, or rows that are not finite.
        """
        refit(self, x)
        return self
