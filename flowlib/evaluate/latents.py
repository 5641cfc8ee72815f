"""Arithmetic with latents: z = flow.encode(x) is a vector, and every vector decodes. Latents in, latents out."""
from __future__ import annotations

import math

import torch
from torch import Tensor

from ..core import Flow
from ..images.multiscale import MultiScale

__all__ = ["directions", "linear", "manifold", "resample", "spherical"]


def _weights(t: Tensor | float, like: Tensor, ndim: int) -> Tensor:
    """t as (n, 1, ..., 1), to stand before `ndim` axes."""
    t = torch.as_tensor(t, dtype=like.dtype, device=like.device)
    return t.reshape(*t.shape, *[1] * ndim)


def linear(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    r"""$(1 - t)\,a + t\,b$, the straight line of Glow (Kingma and Dhariwal 2018, arXiv:1807.03039, section 6). Between
    two independent Gaussian latents its middle is shorter than either by $\sqrt 2$: there are hardly any data so near
    the centre.

    Args:
        a, b: Latents (..., D).
        t: Numbers (n,), or one number; 0 gives a and 1 gives b.

    Returns:
        (n, ..., D), or (..., D) for one number.

    Example:
        >>> linear(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), torch.tensor([0.0, 0.5]))
        tensor([[2., 0.],
                [1., 1.]])
    """
    t = _weights(t, a, a.ndim)
    return (1 - t) * a + t * b


def spherical(a: Tensor, b: Tensor, t: Tensor | float) -> Tensor:
    r"""$\frac{\sin((1-t)\omega)}{\sin\omega}\,a + \frac{\sin(t\omega)}{\sin\omega}\,b$ with $\omega$ the angle between
    a and b: for latents of equal length, the great circle, which keeps the length that Gaussian vectors of D numbers
    have, about $\sqrt D$. Straight where a and b point the same way; opposite ones have no circle of their own and are
    refused.

    Args:
        a, b: Latents (..., D).
        t: Numbers (n,), or one number; 0 gives a and 1 gives b.

    Returns:
        (n, ..., D), or (..., D) for one number.

    Raises:
        ValueError: Latents that point in opposite directions, or a zero latent.

    Example:
        >>> spherical(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), 0.5)
        tensor([1.4142, 1.4142])
    """
    length = a.norm(dim=-1, keepdim=True) * b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(-1, keepdim=True) / length
    if not bool((cosine > -1 + 1e-6).all()):  # NaN too
        raise ValueError("a zero latent, or two that point in opposite directions: no great circle joins them")
    omega = torch.acos(cosine.clamp(max=1.0))
    sine, t = omega.sin(), _weights(t, a, a.ndim)
    near = omega < 1e-3  # the straight line is right to 1e-7 there, and needs no division by the sine
    sine = sine.masked_fill(near, 1.0)
    first = torch.where(near, 1 - t, torch.sin((1 - t) * omega) / sine)
    last = torch.where(near, t, torch.sin(t * omega) / sine)
    return first * a + last * b


def manifold(z: Tensor, n: int = 8) -> Tensor:
    r"""The surface through four latents, $\cos\phi\,(\cos\phi' z_1 + \sin\phi' z_2) + \sin\phi\,(\cos\phi' z_3 +
    \sin\phi' z_4)$ at $\phi, \phi' \in \{0, \tfrac{2\pi}{n}, \dots\}$ (Dinh et al. 2017, arXiv:1605.08803, equation
    19). Independent Gaussian latents keep their length along it, and $\phi + \pi$ gives -z.

    Args:
        z: Four latents (4, ..., D).
        n: Number of angles, a multiple of 4 for the grid to hold the four latents themselves.

    Returns:
        (n, n, ..., D): $\phi$, then $\phi'$.

    Raises:
        ValueError: Not four latents.

    Example:
        >>> manifold(torch.eye(4), 4)[1, 1].round().abs()  # a quarter turn of both angles: the fourth
        tensor([0., 0., 0., 1.])
    """
    if len(z) != 4:
        raise ValueError(f"the manifold goes through four latents, got {len(z)}")
    angles = 2 * math.pi * torch.arange(n, dtype=z.dtype, device=z.device) / n
    turn = torch.stack([angles.cos(), angles.sin()], 1)  # (n, 2)
    return torch.einsum("ai,bj,ij...->ab...", turn, turn, z.unflatten(0, (2, 2)))


def directions(z: Tensor, y: Tensor) -> Tensor:
    r"""The mean latent of each class minus the mean over all classes, equally weighted: along `d[b] - d[a]` an image of
    class a moves towards class b, and so for any attribute (Kingma and Dhariwal 2018, arXiv:1807.03039, section 6).

    Args:
        z: Latents (N, D).
        y: Their classes 0..K-1, integers (N,); each must occur.

    Returns:
        (K, D).

    Raises:
        ValueError: A class without a latent.

    Example:
        >>> directions(torch.tensor([[0.0], [2.0], [6.0]]), torch.tensor([0, 0, 1]))
        tensor([[-2.5000],
                [ 2.5000]])
    """
    counts = torch.bincount(y)
    if len(y) != len(z) or not counts.all():
        raise ValueError(f"every class needs a latent, and every latent a class; got {len(z)} latents, "
                         f"classes {counts.tolist()}")
    sums = z.new_zeros(len(counts), z.shape[-1]).index_add_(0, y, z)
    means = sums / counts[:, None]
    return means - means.mean(0)


def resample(flow: Flow, z: Tensor, scale: int, temperature: float = 1.0) -> Tensor:
    """The latents of one scale drawn anew, all others kept: what is decided there? A temperature of 0 puts the centre
    in place of a draw.

    Args:
        flow: A flow with a `MultiScale` next to its base, such as `RealNVPImage`, `Glow` and `FlowPlusPlus`.
        z: Latents (..., D).
        scale: 0 is the finest, -1 the coarsest.
        temperature: Of the new draw.

    Returns:
        (..., D).

    Raises:
        ValueError: A flow without scales, or not so many.

    Example:
        >>> from flowlib import Glow
        >>> z = resample(Glow((1, 8, 8), scales=2, steps=1, hidden=4), torch.ones(3, 64), scale=0, temperature=0.0)
        >>> z.sum(1)  # half of the latents leave at the first scale
        tensor([32., 32., 32.])
    """
    body = next((m for m in flow.modules() if isinstance(m, MultiScale)), None)
    if body is None or not -len(body.latents) <= scale < len(body.latents):
        count = "no scales" if body is None else f"{len(body.latents)} scales"
        raise ValueError(f"the flow has {count}: it has no latents of scale {scale}")
    parts = body.split(z)
    parts[scale] = body.split(flow.base.sample(z.shape[:-1], temperature))[scale]
    return body.join(parts)
