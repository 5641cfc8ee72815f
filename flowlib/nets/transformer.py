"""Transformers over the tokens of an event, causal or not, whose last layer starts at zero."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Transformer", "attend"]

FUSED = 64  # keys above which PyTorch's fused attention is faster; it can be differentiated once
Cache = Sequence[tuple[Tensor, Tensor]]  # of each block the keys and the values so far, (..., heads, n, width)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    r"""$\operatorname{softmax}(q k^\top / \sqrt{w})\, v$ for q (..., n, w), k and v (..., m, w); `seen` (n, m) is True
    where a query may look."""
    if k.shape[-2] > FUSED:
        return F.scaled_dot_product_attention(q, k, v, seen)
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    return (scores if seen is None else scores.masked_fill(~seen, -torch.inf)).softmax(-1) @ v


class Block(nn.Module):
    """Attention and then a two-layer network on each token, both added to what they read normalised."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.mix = nn.LayerNorm(hidden), nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.feed = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(),
                                  nn.Linear(4 * hidden, hidden))

    def forward(self, h: Tensor, seen: Tensor | None, past: tuple[Tensor, Tensor] | None
                ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Tokens (..., n, hidden), and the keys and values of all tokens so far."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
                   for part in self.qkv(self.norm(h)).chunk(3, -1))
        if past is not None:
            k, v = torch.cat([past[0], k], -2), torch.cat([past[1], v], -2)
        h = h + self.mix(attend(q, k, v, seen).transpose(-3, -2).flatten(-2))
        return h + self.feed(h), (k, v)


class Transformer(nn.Module):
    """One output for each of N tokens, read from all tokens, or of a causal one from the token itself and those before
    it (Vaswani et al. 2017, arXiv:1706.03762; normalised before each layer, with learned place codes).

    Cost: O(N^2 hidden + N hidden^2) a block. Over more than 64 tokens attention is PyTorch's fused one, which can be
    differentiated once; for second derivatives run under
    `torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)`.

    Args:
        length: N.
        inputs: Numbers of each token.
        outputs: Width of each token's result.
        hidden: Width of each token inside.
        depth: Number of blocks.
        heads: Of each attention; they divide `hidden`.
        causal: Whether a token sees only itself and those before it.
        context_dim: Width of a context that is added to every token by a linear map, or None.

    Raises:
        ValueError: No tokens, no blocks, or heads that do not divide `hidden`.

    Example:
        >>> Transformer(5, 2, 3, causal=True)(torch.ones(10, 5, 2)).shape
        torch.Size([10, 5, 3])
    """

    def __init__(self, length: int, inputs: int, outputs: int, hidden: int = 64, depth: int = 2, heads: int = 4,
                 causal: bool = False, context_dim: int | None = None):
        super().__init__()
        if length < 1 or depth < 1 or heads < 1 or hidden < 1 or hidden % heads:
            raise ValueError("a transformer needs a token, a block, and heads that divide its width; "
                             f"got {length} tokens, depth={depth}, hidden={hidden}, heads={heads}")
        self.causal = causal
        self.first = nn.Linear(inputs, hidden)
        self.place = nn.Parameter(0.02 * torch.randn(length, hidden))
        self.context = None if context_dim is None else nn.Linear(context_dim, hidden, bias=False)
        self.blocks = nn.ModuleList(Block(hidden, heads) for _ in range(depth))
        self.norm, self.last = nn.LayerNorm(hidden), nn.Linear(hidden, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens (..., N, inputs), and where there is one a context (..., C) that broadcasts against their leading
        axes, to (..., N, outputs)."""
        return self.extend(x, (), context)[0]

    def extend(self, x: Tensor, cache: Cache, context: Tensor | None = None) -> tuple[Tensor, Cache]:
        """The same for n further tokens (..., n, inputs), of a causal transformer: what it knows of those before is in
        `cache`, () at the start. A new cache is returned, the given one stays as it was."""
        past, n = cache[0][0].shape[-2] if cache else 0, x.shape[-2]
        h = self.first(x) + self.place[past : past + n]
        if self.context is not None and context is not None:
            h = h + self.context(context)[..., None, :]
        seen = None
        if self.causal and n > 1:
            seen = torch.ones(n, past + n, dtype=torch.bool, device=x.device).tril(past)
        pairs = []
        for block, before in zip(self.blocks, cache or [None] * len(self.blocks)):
            h, pair = block(h, seen, before)
            pairs.append(pair)
        return self.last(self.norm(h)), pairs
