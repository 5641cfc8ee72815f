"""What a determinant measures: the volume of the box that a matrix makes of the unit cube, by formula and counting."""
from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["parallelepiped_volume", "volume_by_counting"]


def parallelepiped_volume(edges: Tensor) -> Tensor:
    r"""The k-dimensional volume of the parallelepiped spanned by the columns of `edges`.

    $|\det A|$ for a square matrix, $\sqrt{\det A^\top A}$ (Gram) for k edges in d > k dimensions. Cost: O(d k^2).

    Args:
        edges: (..., d, k), k <= d, one edge a column.

    Raises:
        ValueError: More edges than dimensions.

    Example:
        >>> from flowlib import parallelepiped_volume
        >>> parallelepiped_volume(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
        tensor(6.)
    """
    if edges.ndim < 2 or edges.shape[-1] > edges.shape[-2]:
        raise ValueError(f"expected at most d edges in d dimensions, as columns (..., d, k); got shape "
                         f"{tuple(edges.shape)}")
    return torch.linalg.qr(edges, mode="r").R.diagonal(dim1=-2, dim2=-1).prod(-1).abs()


@torch.no_grad()
def volume_by_counting(edges: Tensor, n: int = 100_000,
                       generator: torch.Generator | None = None) -> tuple[float, float]:
    r"""The volume of a parallelepiped without a determinant: throw points into its bounding box, count those inside.

    A point x lies inside if $A^{-1}x$ lies in the unit cube. With a share $\hat p$ inside of a box of volume V, the
    estimate is $V\hat p$ with standard error $V\sqrt{\hat p(1-\hat p)/n}$. In many dimensions the box grows much larger
    than what is in it, $\hat p$ falls towards zero and the relative error towards one: counting is for few dimensions.

    Args:
        edges: A, (d, d), one edge a column.
        n: Number of points.
        generator: Source of randomness, torch's own if None.

    Returns:
        The estimate and its standard error.

    Raises:
        ValueError: A matrix that is not square.

    Example:
        >>> from flowlib import volume_by_counting
        >>> estimate, error = volume_by_counting(torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
        >>> abs(estimate - 6) < 5 * error
        True
    """
    if edges.ndim != 2 or edges.shape[0] != edges.shape[1]:
        raise ValueError(f"expected a square matrix of edges, got shape {tuple(edges.shape)}")
    low, high = edges.clamp(max=0).sum(1), edges.clamp(min=0).sum(1)  # corners of the bounding box
    box = (high - low).prod().item()
    if box == 0:
        return 0.0, 0.0
    points = low + (high - low) * torch.rand(n, len(edges), generator=generator, dtype=edges.dtype)
    solved = torch.linalg.solve_ex(edges, points.T).result  # not finite for a singular matrix: no point is inside
    share = ((solved >= 0) & (solved <= 1)).all(0).double().mean().item()
    return box * share, box * (share * (1 - share) / n) ** 0.5
