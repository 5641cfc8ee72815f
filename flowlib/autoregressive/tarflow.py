"""TarFlow: an autoregressive flow whose tokens are patches of an image and whose networks are causal transformers."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..bases import StandardNormal
from ..core import Bijection, Compose, Flow
from ..elementwise.affine import Affine
from ..elementwise.base import ElementwiseMap, arrange, check_map, readable
from ..images.dequantize import Dequantize
from ..images.patches import patches
from ..images.preprocess import preprocessing
from ..images.reshape import Reshape
from ..maps import Permutation
from ..nets.transformer import Transformer
from ..recipes import Recipe, Settings
from .layer import by_sweeps

__all__ = ["CausalTransformer", "TarFlow"]

WAYS = ("cache", "sweeps")


class CausalTransformer(Bijection):
    r"""$x_i = g(z_i;\, \theta_i(x_{<i}, c))$ for the tokens i of a sequence, events (N, d), and an elementwise map g:
    the d numbers of a token at once. All $\theta$ are read by one causal `Transformer`, that of the first token from
    the context alone.

    $$\frac{\partial x}{\partial z}\ \text{is block triangular, with diagonal blocks}, \qquad
    \log|\det| = \sum_{i,j} \ln g'(z_{ij})$$

    Cost of `inverse` (density): one pass of the network over all tokens. Cost of `forward` (sampling), by one of two
    ways to the same x:

    - "cache": N steps of one token each. The keys and values of the tokens before it are kept in a cache, a local
      variable, so that all steps together cost about one pass.
    - "sweeps": passes over all tokens at once until nothing changes. After k passes the first k tokens are right, so N
      suffice (and are made where a gradient is wanted).

    Args:
        shape: (N, d).
        elementwise: The map g: `Affine()` in TarFlow.
        hidden: Width of the transformer.
        depth: Its number of blocks.
        heads: Of its attention; they divide `hidden`.
        reverse: Whether a token is moved by those after it instead.
        context_dim: Width of a context (..., C), the same for every token, or None.
        sampling: "cache" or "sweeps"; an attribute, which may be changed at any time.

    Raises:
        ValueError: What `Transformer` refuses, another way of sampling, or what is no elementwise map.

    Papers: Zhai et al. (2024), arXiv:2412.06329; sampling as a fixed point: Song et al. (2021),
    arXiv:2002.03629.

    Example:
        >>> from flowlib import Affine, CausalTransformer
        >>> z, log_det = CausalTransformer((5, 2), Affine()).inverse(torch.ones(10, 5, 2)); z.shape, log_det.shape
        (torch.Size([10, 5, 2]), torch.Size([10]))
    """

    latent_ndim = event_ndim = 2

    def __init__(self, shape: tuple[int, int], elementwise: ElementwiseMap, *, hidden: int = 64, depth: int = 2,
                 heads: int = 4, reverse: bool = False, context_dim: int | None = None, sampling: str = "cache"):
        super().__init__()
        check_map(elementwise, "CausalTransformer")
        if sampling not in WAYS:
            raise ValueError(f"sampling is one of {', '.join(WAYS)}, got {sampling!r}")
        length, dim = self.latent_shape = self.event_shape = tuple(shape)
        self.elementwise, self.reverse, self.context_dim, self.sampling = elementwise, reverse, context_dim, sampling
        self.net = Transformer(length, dim, dim * elementwise.n_params, hidden, depth, heads, True, context_dim)

    def _turned(self, tokens: Tensor) -> Tensor:
        return tokens.flip(-2) if self.reverse else tokens

    def _arranged(self, output: Tensor, like: Tensor) -> Tensor:
        """(..., n, d, n_params), in the tokens' dtype whatever autocast does."""
        return arrange(output, self.elementwise.n_params, -1).to(like.dtype)

    def _params(self, x: Tensor, context: Tensor | None) -> Tensor:
        """For all tokens at once: each reads the token before it, and the first one zeros."""
        before = F.pad(x[..., :-1, :], (0, 0, 1, 0))
        return self._arranged(self.net(readable(before), context), x)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self._turned(x)
        params = self._params(x, context if self.context_shape else None)
        z, log_slope = self.elementwise.inverse(x.expand(params.shape[:-1]), params)
        return self._turned(z), log_slope.sum((-2, -1))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = self._turned(z)
        if self.context_shape is None:
            context = None
        elif context is not None:  # which may bring batch axes
            z = z.expand(*torch.broadcast_shapes(z.shape[:-2], context.shape[:-1]), *z.shape[-2:])
        if self.sampling == "cache":
            x, log_slope = self._token_by_token(z, context)
        else:
            x, log_slope = by_sweeps(lambda x: self.elementwise.forward(z, self._params(x, context)), z, z.shape[-2])
        return self._turned(x), log_slope.sum((-2, -1))

    def _token_by_token(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        token, cache, found = torch.zeros_like(z[..., :1, :]), (), []
        for i in range(z.shape[-2]):
            output, cache = self.net.extend(readable(token), cache, context)
            token, log_slope = self.elementwise.forward(z[..., i : i + 1, :], self._arranged(output, token))
            found.append((token, log_slope))
        tokens, log_slopes = zip(*found)
        return torch.cat(tokens, -2), torch.cat(log_slopes, -2)


class TarFlow(Flow):
    r"""TarFlow (Zhai et al. 2024, arXiv:2412.06329) over integer pixels: an image is a sequence of patches, and each
    layer a `CausalTransformer` with an affine map, from the first patch to the last and the other way round in turn.
    It is `MAF` with patches for numbers and attention for masks. (In the paper the first patch of a layer stays as it
    is; here it is moved by what is learned, of a class where there is a context.)

    Pixels are uniformly dequantized, so `log_prob` is a lower bound and random. Cost: density one pass of all networks;
    sampling one step a patch and layer, or sweeps, see `CausalTransformer`.

    Args:
        shape: (C, H, W).
        levels: Number of grey values.
        patch: Side of a patch, which divides H and W.
        layers: Number of layers.
        depth: Transformer blocks of each.
        hidden: Their width.
        heads: Of their attention.
        context_dim: Width of a context, a one-hot class for a class-conditional model, or None.
        preprocess: What the flow sees of a pixel: "scale", "centre", "logit" or the logit's alpha
            (`flowlib.images.preprocess`).
        sampling: "cache" or "sweeps".

    Raises:
        ValueError: A patch that does not divide height and width, or what `CausalTransformer` refuses.

    Example:
        >>> from flowlib import TarFlow
        >>> TarFlow((1, 8, 8), levels=17, layers=2, hidden=8).sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, shape: tuple[int, int, int], *, levels: int = 256, patch: int = 2, layers: int = 4,
                 depth: int = 2, hidden: int = 64, heads: int = 4, context_dim: int | None = None,
                 preprocess: str | float = "logit", sampling: str = "cache"):
        order, dims = patches(shape, patch), math.prod(shape)
        tokens = (len(order), dims // len(order))
        body = [CausalTransformer(tokens, Affine(), hidden=hidden, depth=depth, heads=heads, reverse=k % 2 == 1,
                                  context_dim=context_dim, sampling=sampling) for k in range(layers)]
        super().__init__(StandardNormal(dims), Compose(
            Compose(Reshape((dims,), tokens), *body, Reshape(tokens, (dims,)), Permutation(order.flatten().argsort()),
                    Reshape((dims,), tuple(shape))), *preprocessing(preprocess), Dequantize(levels)))
        self.levels = levels


RECIPES = (Recipe("tarflow", TarFlow, over="images",
                  small=Settings(dict(patch=2, layers=4, depth=2, hidden=64),
                                 dict(epochs=60, batch_size=64, lr=3e-3, weight_decay=0.3, ema=0.98))),)
