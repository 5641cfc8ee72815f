"""The Mint layer: a residual layer of masked convolutions, inverted for all pixels at once by sweeps."""
from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..arguments import declared_context
from ..core import Bijection, InversionError
from ..elementwise.base import readable
from ..nets.conv import at_pixels
from ..nets.triangular import TriangularNet
from ..numerics import full_precision, tame, wide

__all__ = ["MintLayer"]


class MintLayer(Bijection):
    r"""To the latent, $z = f(x) = t \odot x + g(x)$ with $t = e^s$ and g a `TriangularNet` (Song et al. 2019,
    arXiv:1907.07945, section 3): its Jacobian is triangular in raster order, with a diagonal that is at least t.

    $$\log|\det \partial z / \partial x| = \sum_i \ln(t_i + \partial g_i / \partial x_i)$$

    Cost: `inverse` (density) one pass of the network; `forward` (sampling) sweeps of one pass each, at most D.

    In a sweep every coordinate is moved to where its *own* equation $f_i(x) = z_i$ holds if the others stay, by a
    bracketed Newton search that needs no convolution, until the residual f(x) - z is rounding. There is no step size.
    Once those before it are right, a coordinate is right after the next sweep, so as many sweeps suffice as the longest
    chain of coordinates of which each sees the one before (`depth`), whatever the weights; mostly far fewer are made.
    Where a gradient is wanted, depth + 1 Newton steps follow, with the derivatives of the inverse up to the third.

    It computes outside of autocast: a residual of 16 bits would tell nothing.

    Args:
        shape: (C, H, W); D or (D,) for vectors, whose coordinates are then the channels of one pixel.
        units: K, hidden units for each coordinate.
        kernel: Width of the kernels, odd; a vector has none.
        reverse: Whether the order is the last pixel's first.
        context_dim: Width of a context that g also reads, or None.
        context_shape: In its place, the shape of one context: (K',), or (K', H', W') for images.

    Raises:
        ValueError: An even kernel, or no unit.
        InversionError: In `forward`, a residual that is more than rounding, as of parameters that are not finite.

    Example:
        >>> layer = MintLayer((1, 6, 6)); z, log_det = layer.inverse(torch.zeros(2, 1, 6, 6))
        >>> bool(torch.allclose(layer(z)[0], torch.zeros(()), atol=1e-5))
        True
    """

    event_shape: tuple[int, ...]

    def __init__(self, shape: int | tuple[int, ...], *, units: int = 8, kernel: int = 3, reverse: bool = False,
                 context_dim: int | None = None, context_shape: tuple[int, ...] | None = None):
        super().__init__()
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if len(shape) not in (1, 3) or min(shape) < 1 or units < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError("MintLayer is over (C, H, W) or (D,), with at least one unit and an odd kernel, got "
                             f"shape={shape}, units={units}, kernel={kernel}")
        self.latent_ndim = self.event_ndim = len(shape)
        self.latent_shape = self.event_shape = shape
        self.context_shape = declared_context(context_dim, context_shape)
        self.image = shape if len(shape) == 3 else (*shape, 1, 1)
        self.reverse = reverse
        self.net = TriangularNet(self.image[0], units, kernel if len(shape) == 3 else 1, self.context_dim)
        with torch.no_grad():
            self.net.convs[-1].weight.mul_(0.1)  # near the identity
        self.log_t = nn.Parameter(torch.zeros(self.image))

    @property
    def depth(self) -> int:
        """No chain of coordinates of which each sees the one before is longer: so many sweeps give the inverse."""
        c, h, w = self.image
        reach = sum(conv.reach for conv in self.net.convs)  # from a row to the right in the row above
        return min(c * (w + (h - 1) * (reach + 1) if reach else 1), math.prod(self.image))

    def _images(self, value, context):
        """Value and context as images (N, C, H, W), turned so that the order is natural; the batch; the way back."""
        batch = value.shape[: value.ndim - self.event_ndim]
        context = at_pixels(context, self.context_shape, self.image[1:])
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-3])
            value = value.expand(*batch, *self.event_shape)
            context = wide(context).expand(*batch, *context.shape[-3:]).reshape(-1, *context.shape[-3:])
            context = context.flip(-1, -2) if self.reverse else context

        def turned(images):
            return images.flip(-1, -2, -3) if self.reverse else images

        def back(images):
            return turned(images).reshape(*batch, *self.event_shape).to(value.dtype)

        images = wide(value).reshape(-1, *self.image)
        return turned(torch.where(images.isfinite(), tame(images), images)), context, batch, back

    def _map(self, x, t, context):
        """f(x), the diagonal of its Jacobian, and the hidden units."""
        value, diagonal, hidden = self.net(readable(x), context)
        return t * x + value, t + diagonal, hidden

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(x):
            images, context, batch, back = self._images(x, context)
            value, slope, _ = self._map(images, wide(self.log_t).exp(), context)
            return back(value), slope.log().sum((1, 2, 3)).reshape(batch).to(x.dtype)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with full_precision(z):
            y, context, batch, back = self._images(z, context)
            t = wide(self.log_t).exp()
            # torch's stub of `compiler.disable` forgets the arguments
            x, slope = self._solve(y, t, context)  # pyright: ignore[reportCallIssue]
            return back(x), -slope.log().sum((1, 2, 3)).reshape(batch).to(z.dtype)

    @torch.compiler.disable  # the number of sweeps is the data's
    def _solve(self, y, t, context):
        """The x with f(x) = y, and the slopes there."""
        with torch.no_grad():
            x, slope = self._sweep(y, t, context)
        if torch.is_grad_enabled():
            for _ in range(self.depth + 1):
                value, slope, _ = self._map(x, t, context)
                x = x + (y - value) / slope
            slope = self._map(x, t, context)[1]
        return x, slope

    def _sweep(self, y, t, context):
        finite = y.isfinite().flatten(1).all(1)[:, None, None, None]
        target = y.masked_fill(~finite, 0.0)
        own = self.net.own_weights()
        x, worst = target / t, math.inf
        for k in range(self.depth + 1):
            value, slope, hidden = self._map(x, t, context)
            residual = target - value
            rounding = _rounding(target, slope, x, hidden)
            last, worst = worst, _worst(residual, rounding)
            if k == self.depth or worst <= 2 or last <= worst <= 64:  # in units of rounding; or no longer falling
                break
            x = x + self._own_root(residual, x, t, slope, hidden, own, rounding)
        self._raise_unless_solved(residual, rounding)
        return x.masked_fill(~finite, torch.nan), slope

    def _own_root(self, residual, x, t, slope, hidden, own, rounding):
        """For each coordinate the step that solves its own equation. It lies between 0 and residual / t."""
        far = residual / t
        low, high = far.clamp(max=0.0), far.clamp(min=0.0)
        step, last = residual / slope, far.abs()
        seen = readable(x)
        for k in range(64):
            rise, slope = self.net.along(readable(x + step) - seen, hidden, own)
            gap = residual - t * step - rise
            worst = _worst(gap, rounding)
            if worst <= 4 or (k == 16 and math.isnan(worst)):  # Newton is long there, but for the oddest of slopes
                break
            low, high = torch.where(gap >= 0, step, low), torch.where(gap <= 0, step, high)
            newton = step + gap / (t + slope)
            # steps must halve, or the bracket must, as in `numerics.solve_monotone`
            good = (newton >= low) & (newton <= high) & ((newton - step).abs() <= 0.5 * last)
            following = torch.where(good, newton, torch.lerp(low, high, 0.5))
            step, last = following, (following - step).abs()
        return step

    @staticmethod
    def _raise_unless_solved(residual, rounding):
        worst = _worst(residual, rounding / math.sqrt(torch.finfo(rounding.dtype).eps))
        if worst > 1:
            raise InversionError(f"no inverse found: the largest residual is {residual.abs().max().item():.3g}")


def _rounding(y, slope, x, hidden):
    """What rounding may leave of f(x) - y, which sums numbers of other places and of hidden units: (N, 1, 1, 1)."""
    largest = [(y.abs() + (slope * x).abs()).amax((1, 2, 3), keepdim=True), hidden[1].abs().amax((1, 2, 3), True)]
    return torch.finfo(y.dtype).eps * (1 + largest[0] + largest[1])


def _worst(residual, allowed):
    """The largest ratio as a number, infinite where a residual is NaN. NaN under vmap, which lets none be looked at; 0
    where there are none."""
    if residual.is_meta or not residual.numel():
        return 0.0
    try:
        return (residual.abs() / allowed).nan_to_num(math.inf).max().item()
    except RuntimeError:
        return math.nan
