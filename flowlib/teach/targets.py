"""Two-dimensional targets: energies with exact constants, to fit by reverse KL, and densities to fit by likelihood."""
from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from ..arguments import number_of_draws

__all__ = ["U1", "U2", "U3", "U4", "Checkerboard", "EightGaussians", "Moons", "Pinwheel", "Rings"]

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class Energy:
    r"""A density $p(z) = e^{-U(z)}/Z$ on the plane, given by its energy U and the exact $\ln Z$."""

    log_z: float
    event_shape = (2,)

    def energy(self, z: Tensor) -> Tensor:
        """U(z) in nats, of shape `z.shape[:-1]`."""
        raise TypeError(f"{type(self).__name__} does not define energy")

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density $-U(z) - \\ln Z$ in nats, of shape `z.shape[:-1]`."""
        return -self.energy(z) - self.log_z


class U1(Energy):
    r"""A ring of radius 2 with two heavy sides: $U = \tfrac12\left(\frac{\lVert z\rVert - 2}{0.4}\right)^2 -
    \ln\left(e^{-\frac12 ((z_1-2)/0.6)^2} + e^{-\frac12((z_1+2)/0.6)^2}\right)$ (Rezende and Mohamed 2015,
    arXiv:1505.05770, table 1). $\ln Z$ by quadrature.

    Example:
        >>> round(U1().log_z, 6)
        1.877502
    """

    log_z = 1.8775020586  # 2-D trapezoidal rule on [-6, 6]^2, 4001 points an axis

    def energy(self, z: Tensor) -> Tensor:
        side = lambda c: -0.5 * ((z[..., 0] - c) / 0.6) ** 2  # noqa: E731
        return 0.5 * ((torch.linalg.vector_norm(z, dim=-1) - 2) / 0.4) ** 2 - torch.logaddexp(side(2.0), side(-2.0))


class _Strip(Energy):
    r"""U2 to U4 are strips along $z_1$, the same for every $z_1$ up to a shift of $z_2$: as they stand, no densities on
    the plane, since Z grows with the box. A wall $\tfrac12\left((|z_1| - 4)_+/0.1\right)^2$ closes them; then $Z =
    L\,c$ with $L = 8 + 0.1\sqrt{2\pi}$, the length between the walls, and c, the mass across the strip."""

    across: float  # c

    @property
    def log_z(self) -> float:
        return math.log(8 + 0.1 * math.sqrt(2 * math.pi)) + math.log(self.across)

    @staticmethod
    def _wave(z: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * z[..., 0])

    @staticmethod
    def _wall(z: Tensor) -> Tensor:
        return 0.5 * ((z[..., 0].abs() - 4).clamp(min=0) / 0.1) ** 2

    @staticmethod
    def _bump(z: Tensor) -> Tensor:
        return 3 * torch.exp(-0.5 * ((z[..., 0] - 1) / 0.6) ** 2)

    @staticmethod
    def _step(z: Tensor) -> Tensor:
        return 3 * torch.sigmoid((z[..., 0] - 1) / 0.3)


class U2(_Strip):
    r"""A sine wave: $U = \tfrac12\left(\frac{z_2 - w_1}{0.4}\right)^2$ + wall, $w_1 = \sin(\pi z_1/2)$; $c =
    0.4\sqrt{2\pi}$ (Rezende and Mohamed 2015, arXiv:1505.05770, table 1; the wall is ours).

    Example:
        >>> round(U2().log_z, 4)
        2.1129
    """

    across = 0.4 * math.sqrt(2 * math.pi)

    def energy(self, z: Tensor) -> Tensor:
        return 0.5 * ((z[..., 1] - self._wave(z)) / 0.4) ** 2 + self._wall(z)


class U3(_Strip):
    r"""A wave that forks: two Gaussians across, of width 0.35, a bump $w_2 = 3 e^{-\frac12((z_1-1)/0.6)^2}$ apart; $c =
    0.7\sqrt{2\pi}$ (Rezende and Mohamed 2015, arXiv:1505.05770, table 1; the wall is ours).

    Example:
        >>> round(U3().log_z, 4)
        2.6726
    """

    across = 0.7 * math.sqrt(2 * math.pi)

    def energy(self, z: Tensor) -> Tensor:
        off = z[..., 1] - self._wave(z)
        arm = lambda d: -0.5 * (d / 0.35) ** 2  # noqa: E731
        return self._wall(z) - torch.logaddexp(arm(off), arm(off + self._bump(z)))


class U4(_Strip):
    r"""A wave that splits for good: widths 0.4 and 0.35, a step $w_3 = 3\sigma((z_1-1)/0.3)$ apart; $c =
    0.75\sqrt{2\pi}$ (Rezende and Mohamed 2015, arXiv:1505.05770, table 1; the wall is ours).

    Example:
        >>> round(U4().log_z, 4)
        2.7416
    """

    across = 0.75 * math.sqrt(2 * math.pi)

    def energy(self, z: Tensor) -> Tensor:
        off = z[..., 1] - self._wave(z)
        return self._wall(z) - torch.logaddexp(-0.5 * (off / 0.4) ** 2, -0.5 * ((off + self._step(z)) / 0.35) ** 2)


class EightGaussians(Energy):
    r"""Eight Gaussians of standard deviation 0.5 on a circle of radius 4, equally heavy.

    Example:
        >>> EightGaussians().sample(5).shape
        torch.Size([5, 2])
    """

    log_z = 0.0

    def __init__(self):
        angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
        self.centres = 4 * torch.stack([angles.cos(), angles.sin()], -1)  # (8, 2)

    def energy(self, z: Tensor) -> Tensor:
        squared = (z[..., None, :] - self.centres.to(z)).square().sum(-1)  # (..., 8)
        return math.log(8 * 2 * math.pi * 0.25) - torch.logsumexp(-squared / (2 * 0.25), -1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, 2), by torch's random numbers or a generator's."""
        n = number_of_draws(n)
        centres = self.centres.to(torch.get_default_dtype())[torch.randint(8, (n,), generator=generator)]
        return centres + 0.5 * torch.randn(n, 2, generator=generator)


class Checkerboard(Energy):
    r"""The eight dark fields of a 4 x 4 board over $[-4, 4]^2$, uniformly: density 1/32 on them, 0 elsewhere.

    Example:
        >>> Checkerboard().log_prob(torch.tensor([[1.0, 1.0], [3.0, 1.0]])).exp()
        tensor([0.0312, 0.0000])
    """

    log_z = math.log(32)

    def energy(self, z: Tensor) -> Tensor:
        fields = (z / 2).floor().sum(-1)
        dark = (fields % 2 == 0) & (z.abs() < 4).all(-1)
        return torch.where(dark, 0.0, torch.inf).to(z.dtype)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, 2), by torch's random numbers or a generator's."""
        n = number_of_draws(n)
        column = torch.randint(-2, 2, (n,), generator=generator)
        row = 2 * torch.randint(-1, 1, (n,), generator=generator) + column % 2  # of the column's parity: a dark field
        return 2 * (torch.stack([column, row], -1) + torch.rand(n, 2, generator=generator))


class Rings(Energy):
    r"""Four concentric rings: the radius is uniform over 1, 2, 3, 4 plus Gaussian noise, the angle is uniform. The
    density is that of radius over circumference, $p(z) = \frac{1}{2\pi r}\,\tfrac14\sum_k N(r; k, s^2)$, folded at the
    centre.

    Args:
        noise: s.

    Example:
        >>> Rings().sample(5).shape
        torch.Size([5, 2])
    """

    log_z = 0.0

    def __init__(self, noise: float = 0.1):
        self.noise = noise

    def energy(self, z: Tensor) -> Tensor:
        r = torch.linalg.vector_norm(z, dim=-1)
        k = torch.arange(1, 5, dtype=z.dtype, device=z.device)
        normal = lambda r: (-0.5 * ((r[..., None] - k) / self.noise) ** 2).logsumexp(-1)  # noqa: E731
        log_radius = torch.logaddexp(normal(r), normal(-r)) - math.log(4 * self.noise) - HALF_LOG_2PI
        return -(log_radius - (2 * math.pi * r).log())

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, 2), by torch's random numbers or a generator's."""
        n = number_of_draws(n)
        radius = torch.randint(1, 5, (n,), generator=generator) + self.noise * torch.randn(n, generator=generator)
        angle = 2 * math.pi * torch.rand(n, generator=generator)
        return radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


class Moons:
    """Two interleaving half circles with Gaussian noise. Samples only: the density has no closed form.

    Args:
        noise: Standard deviation of the noise.

    Example:
        >>> Moons().sample(5).shape
        torch.Size([5, 2])
    """

    def __init__(self, noise: float = 0.1):
        self.noise = noise

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, 2), by torch's random numbers or a generator's."""
        n = number_of_draws(n)
        angle, upper = math.pi * torch.rand(n, generator=generator), torch.rand(n, generator=generator) < 0.5
        x = torch.where(upper, angle.cos(), 1 - angle.cos())
        y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
        return torch.stack([x, y], -1) + self.noise * torch.randn(n, 2, generator=generator)


class Pinwheel:
    """Five arms: Gaussian clouds, stretched outwards and wound round the centre. Samples only.

    Example:
        >>> Pinwheel().sample(5).shape
        torch.Size([5, 2])
    """

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n draws, (n, 2), by torch's random numbers or a generator's."""
        n = number_of_draws(n)
        along, across = 1 + 0.3 * torch.randn(n, generator=generator), 0.1 * torch.randn(n, generator=generator)
        angle = 2 * math.pi / 5 * torch.randint(5, (n,), generator=generator) + 0.25 * along.exp()
        cos, sin = angle.cos(), angle.sin()
        return 2 * torch.stack([along * cos - across * sin, along * sin + across * cos], -1)
