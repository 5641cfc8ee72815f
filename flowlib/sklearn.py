"""Flows as density estimators of scikit-learn, for pipelines and grid searches: `FlowDensity().fit(X).score(X)`."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from .autoregressive.maf import MAF
from .autoregressive.naf import NAF
from .core import Compose, Flow
from .coupling.nice import NICE
from .coupling.nsf import NSF
from .coupling.realnvp import RealNVP
from .maps import AffineMap
from .seeds import derive, kept_random_state
from .train import fit

try:
    from sklearn.base import BaseEstimator, DensityMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("flowlib.sklearn needs scikit-learn 1.6 or newer: pip install 'scikit-learn>=1.6'") from error

__all__ = ["FlowDensity"]

FLOWS = {"maf": MAF, "naf": NAF, "nice": NICE, "nsf": NSF, "realnvp": RealNVP}
COUPLINGS = ("nice", "nsf", "realnvp")  # which move one part of a row given the other, so that there must be two
ROWS = 8192  # of X that pass through the flow at once


class FlowDensity(DensityMixin, BaseEstimator):
    r"""The density of the rows of a table, by a normalizing flow, as a scikit-learn estimator.

    Columns are standardised inside, and the volume is counted: with mean $m$ and deviation $s$ of the training rows,
    $\log p(x) = \log q((x - m) / s) - \sum_j \log s_j$ is a density of the rows as they were given. The flow is trained
    in float32 by `flowlib.train.fit`, on the CPU, until the likelihood of held-out rows stops rising; densities and
    samples are float64. Cost: as that of the flow.

    Args:
        flow: "maf", "naf", "nsf", "realnvp" or "nice" with the `layers` and `hidden` below; or a function that makes
            an untrained flow of the number of columns. The last three need two columns.
        layers: Number of layers; None: the model's own default.
        hidden: Widths of each network's hidden layers.
        steps: The most updates.
        batch_size: Rows per update.
        lr: Peak learning rate.
        weight_decay: Of the networks' matrices.
        validation_fraction: Share of the rows that is held out to stop early; 0: none, all steps are made.
        patience: Stop after so many validations (of 40) without a better one; None: never.
        random_state: Of the start, the rows held out, the order of the rows, and of `sample`.

    Attributes:
        flow_: The trained flow, a `flowlib.Flow` in float64 over rows as they were given.
        history_: The `flowlib.train.History` of the training.
        n_features_in_: Number of columns.
        feature_names_in_: Their names, where X had any.

    Raises:
        ValueError: In `fit`: fewer than two rows, a column of one value (its density is not finite), a flow that is not
            known, or what `flowlib.train.fit` refuses.

    Example:
        >>> import numpy as np; from flowlib.sklearn import FlowDensity
        >>> X = np.random.default_rng(0).normal(100.0, 20.0, (200, 2))
        >>> FlowDensity("realnvp", steps=20, random_state=0).fit(X).sample(3).shape
        (3, 2)
    """

    def __init__(self, flow: str | Callable[[int], Flow] = "maf", *, layers: int | None = None,
                 hidden: Sequence[int] = (64, 64), steps: int = 2000, batch_size: int = 256, lr: float = 2e-3,
                 weight_decay: float = 0.0, validation_fraction: float = 0.1, patience: int | None = 10,
                 random_state: Any = None):
        self.flow = flow
        self.layers = layers
        self.hidden = hidden
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(self, X, y=None) -> FlowDensity:
        """Train a new flow on the rows of X (N, D); y is ignored."""
        X = np.asarray(validate_data(self, X, dtype=np.float64, ensure_min_samples=2,
                                     ensure_min_features=2 if self.flow in COUPLINGS else 1))
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"validation_fraction must lie in [0, 1), got {self.validation_fraction}")
        mean, scale = X.mean(0), X.std(0)
        if (flat := np.flatnonzero(scale <= 1e-12 * np.abs(mean))).size:
            raise ValueError(f"columns {flat.tolist()} have one value each, where no density is finite: drop them")
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**31 - 1))
        rows = torch.from_numpy((X - mean) / scale).float()[torch.from_numpy(random.permutation(len(X)))]
        held_out = int(self.validation_fraction * len(rows))
        with kept_random_state(torch.device("cpu")):
            torch.manual_seed(derive(seed))
            flow = self._untrained(X.shape[1])
        self.history_ = fit(flow, rows[held_out:], rows[:held_out] if held_out else None, steps=self.steps,
                            batch_size=self.batch_size, lr=self.lr, weight_decay=self.weight_decay,
                            patience=self.patience if held_out else None, seed=seed, cpu=True, progress=False)
        flow.double()
        units = AffineMap(torch.from_numpy(scale), torch.from_numpy(mean))
        self.flow_ = Flow(flow.base, Compose(flow.bijection, units))
        self.flow_.eval().requires_grad_(False)
        return self

    def _untrained(self, dim: int) -> Flow:
        if callable(self.flow):
            return self.flow(dim)
        if self.flow not in FLOWS:
            raise ValueError(f"unknown flow {self.flow!r}; known: {', '.join(FLOWS)}, or a function of the dimension")
        layers = {} if self.layers is None else {"layers": self.layers}
        return FLOWS[self.flow](dim, hidden=tuple(self.hidden), **layers)

    def score_samples(self, X) -> np.ndarray:
        """Log-density of each row of X (N, D) in nats, float64 (N,)."""
        check_is_fitted(self)
        X = np.asarray(validate_data(self, X, dtype=np.float64, reset=False))
        with torch.no_grad():
            return torch.cat([self.flow_.log_prob(rows) for rows in torch.from_numpy(X).split(ROWS)]).numpy()

    def score(self, X, y=None) -> float:
        """Mean log-density of the rows of X in nats: higher is better; y is ignored."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Draw rows, float64 (n_samples, D); `random_state` None stands for the estimator's own."""
        check_is_fitted(self)
        random = check_random_state(self.random_state if random_state is None else random_state)
        with kept_random_state(torch.device("cpu")):
            torch.manual_seed(int(random.randint(2**31 - 1)))
            return self.flow_.sample(n_samples).numpy()
