"""Sequences with a hidden state: the linear-Gaussian model, whose likelihood is exact (the Kalman filter), and one of
networks, whose likelihood has a bound."""
from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from ..core import Bijection
from ..nets.mlp import MLP

__all__ = ["LinearStateSpace", "SequentialVAE"]


class LinearStateSpace:
    r"""$z_t = A z_{t-1} + \text{noise}$ of covariance Q, $x_t = C z_t + \text{noise}$ of covariance R, and
    $z_1 \sim N(0, P)$: the model whose every quantity has a formula, to hold approximations to.

    The Kalman filter predicts each frame from those before it, $x_t|x_{<t} \sim N(C \hat z_t, S_t)$. So it is an affine
    autoregressive flow across time itself, $x_t = L_t \epsilon_t + C \hat z_t$ with $S_t = L_t L_t^\top$, and for its
    own sequences the best there is. Where a frame is one number, a `TemporalAffine` of enough lags comes as near as one
    likes.

    Args:
        transition: A, (K, K).
        noise: Q, (K, K), positive definite.
        emission: C, (D, K).
        observation: R, (D, D), positive definite.
        start: P, (K, K), positive definite. None: the stationary covariance, which solves $P = A P A^\top + Q$.

    Raises:
        ValueError: Matrices that do not fit each other; without a start, a transition that has no stationary
            covariance.

    Example:
        >>> one = torch.eye(1); model = LinearStateSpace(0.9 * one, one, one, one)
        >>> model.log_prob(torch.zeros(5, 30, 1)).shape
        torch.Size([5])
    """

    def __init__(self, transition: Tensor, noise: Tensor, emission: Tensor, observation: Tensor,
                 start: Tensor | None = None):
        k, d = len(transition), len(emission)
        for matrix, shape in ((transition, (k, k)), (noise, (k, k)), (emission, (d, k)), (observation, (d, d)),
                              *([(start, (k, k))] if start is not None else [])):
            if matrix.shape != shape:
                raise ValueError(f"for {k} states and frames of {d} numbers expected a matrix of shape {shape}, "
                                 f"got {tuple(matrix.shape)}")
        self.transition, self.noise, self.emission, self.observation = transition, noise, emission, observation
        if start is None:
            if not torch.linalg.eigvals(transition).abs().max() < 1:
                raise ValueError("this transition has no stationary covariance: give a start")
            moved = torch.kron(transition, transition)  # vec(A P A') = (A x A) vec(P)
            start = cast(Tensor, torch.linalg.solve(torch.eye(k * k, dtype=moved.dtype) - moved,
                                                    noise.flatten()).reshape(k, k))
        self.start = start

    def whiten(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""What could not be foreseen of each frame, in units of its deviation.

        Args:
            x: (..., T, D).

        Returns:
            $\epsilon$ (..., T, D), under the model independent standard normals, and $\log|\det d\epsilon/dx|$ (...).
        """
        check_sequences(x, len(self.observation))
        a, c, mean, covariance = self.transition, self.emission, x.new_zeros(*x.shape[:-2], len(self.start)), self.start
        found, log_det = [], x.new_zeros(x.shape[:-2])
        for frame in x.unbind(-2):
            factor = torch.linalg.cholesky(c @ covariance @ c.T + self.observation)
            surprise = torch.linalg.solve_triangular(factor, (frame - mean @ c.T)[..., None], upper=False)
            gain = torch.linalg.solve_triangular(factor, c @ covariance, upper=False)  # (D, K)
            found.append(surprise.squeeze(-1))
            log_det = log_det - factor.diagonal().log().sum()
            mean = (mean + found[-1] @ gain) @ a.T
            covariance = a @ (covariance - gain.T @ gain) @ a.T + self.noise
        return torch.stack(found, -2), log_det

    def log_prob(self, x: Tensor) -> Tensor:
        """ln p(x) in nats of sequences (..., T, D): (...)."""
        e, log_det = self.whiten(x)
        return log_det - 0.5 * (e.square() + math.log(2 * math.pi)).sum((-2, -1))

    def sample(self, n: int, length: int) -> Tensor:
        """n sequences, (n, T, D)."""
        first, step, spread = map(torch.linalg.cholesky, (self.start, self.noise, self.observation))
        z = torch.randn(n, len(self.start), dtype=first.dtype) @ first.T
        frames = []
        for _ in range(length):
            noise = torch.randn(n, len(self.observation), dtype=first.dtype) @ spread.T
            frames.append(z @ self.emission.T + noise)
            z = z @ self.transition.T + torch.randn(z.shape, dtype=first.dtype) @ step.T
        return torch.stack(frames, -2)

    def covariance(self, length: int) -> Tensor:
        """That of a whole sequence, flattened: (T D, T D)."""
        d, c, at = len(self.observation), self.emission, self.start
        whole = at.new_zeros(length, d, length, d)
        for t in range(length):
            moved = at  # of z_s with z_t, for s from t on
            for s in range(t, length):
                block = c @ moved @ c.T
                whole[s, :, t], whole[t, :, s] = block, block.T
                moved = self.transition @ moved
            whole[t, :, t] += self.observation
            at = self.transition @ at @ self.transition.T + self.noise
        return whole.reshape(length * d, length * d)


class SequentialVAE(nn.Module):
    r"""A state space of networks: $p(z_t|z_{t-1})$, $p(x_t|z_t)$ and, for the bound, $q(z_t|z_{t-1}, x_{\le t})$, all
    Gaussians with a diagonal covariance, after an autoregressive flow or none.

    With a flow, the latents explain $y = f^{-1}(x)$ in place of x, and the bound gets $\log|\det dy/dx|$ (Marino et al.
    2020, arXiv:2010.03172): what simply follows from the last frames, the latents need not carry.

    Args:
        dim: D, numbers in a frame.
        latent: K, numbers in a state.
        hidden: Width of each network and of the recurrent net that reads $x_{\le t}$.
        flow: A bijection of sequences (..., T, D), such as `TemporalAffine(dim)`, or None.

    Example:
        >>> SequentialVAE(2).elbo(torch.zeros(5, 30, 2)).shape
        torch.Size([5])
    """

    def __init__(self, dim: int, latent: int = 4, hidden: int = 32, flow: Bijection | None = None):
        super().__init__()
        self.flow, self.latent = flow, latent
        self.reader = nn.GRU(dim, hidden, batch_first=True)
        self.prior = MLP(latent, 2 * latent, (hidden,))
        self.posterior = MLP(latent + hidden, 2 * latent, (hidden,))
        self.emission = MLP(latent, 2 * dim, (hidden,))
        for net in (self.prior, self.posterior, self.emission):  # were the last layers zero, no gradient would pass
            nn.init.normal_(cast(nn.Linear, net.layers[-1]).weight, std=0.1)

    def elbo(self, x: Tensor) -> Tensor:
        """The evidence lower bound of sequences (B, T, D), from one draw of the states: (B,) nats."""
        check_sequences(x, self.reader.input_size)
        y, bound = (x, x.new_zeros(len(x))) if self.flow is None else self.flow.inverse(x)
        read, _ = self.reader(y)
        state, states = x.new_zeros(len(x), self.latent), []
        for seen in read.unbind(1):
            before = gaussian(self.prior(state))
            after = gaussian(self.posterior(torch.cat([state, seen], -1)))
            state = after.rsample()
            bound = bound + (before.log_prob(state) - after.log_prob(state)).sum(-1)
            states.append(state)
        return bound + gaussian(self.emission(torch.stack(states, 1))).log_prob(y).sum((-2, -1))

    def forward(self, x: Tensor) -> Tensor:
        """The loss -ELBO of each sequence, (B,) nats: an objective for `train.fit`."""
        return -self.elbo(x)


def check_sequences(x: Tensor, dim: int) -> None:
    """ValueError for what is no sequence of frames of `dim` numbers."""
    if x.ndim < 2 or x.shape[-1] != dim or x.shape[-2] < 1:
        raise ValueError(f"expected sequences of at least one frame, (..., T, {dim}), got {tuple(x.shape)}")


def gaussian(raw: Tensor) -> torch.distributions.Normal:
    """N(m, s^2) from (..., 2M), with ln s within ±5."""
    mean, log_scale = raw.chunk(2, -1)
    return torch.distributions.Normal(mean, (5 * torch.tanh(log_scale / 5)).exp(), validate_args=False)
