"""From categories to real numbers: a learned cloud of points around each, and which category a point is likely of."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from ..bases import StandardLogistic
from ..core import Bijection, Compose, Inverse
from ..coupling.sets import SetCoupling
from ..coupling.vector import Coupling
from ..elementwise.affine import Affine
from ..elementwise.base import Elementwise, readable
from ..elementwise.mixture import LogisticMixtureCDF
from ..nets.mlp import MLP

__all__ = ["CategoricalEncoding", "FactorisedEncoding", "VariationalEncoding"]


class CategoricalEncoding(Bijection):
    r"""N categories 0..K-1, each as a point of $R^d$: what all encodings share. `inverse` is random: it draws $z \sim
    q(z|x)$ and returns $\sum_i \ln p(x_i|z_i) - \ln q(z|x)$ as its log-det; `forward` draws $x_i \sim p(x_i|z_i)$, with
    the opposite log-det.

    So `log_prob` of a flow that ends with it is one sample of

    $$E_{q(z|x)}\Big[\ln \frac{p(z) \prod_i p(x_i|z_i)}{q(z|x)}\Big] \le \ln P(x), \qquad
    P(x) = E_{q(z|x)}\Big[\frac{p(z) \prod_i p(x_i|z_i)}{q(z|x)}\Big]$$

    (Lippe and Gavves 2021, arXiv:2006.09790), and `sample` draws from P itself.

    A subclass writes `draw` and `log_decoder`.

    Attributes:
        categories: K.
    """

    likelihood = "bound"
    latent_ndim, event_ndim = 2, 1

    def __init__(self, length: int, categories: int, dim: int):
        super().__init__()
        if length < 1 or categories < 2 or dim < 1:
            raise ValueError("an encoding needs a place, two categories and a dimension, "
                             f"got length={length}, categories={categories}, dim={dim}")
        self.latent_shape, self.event_shape, self.categories = (length, dim), (length,), categories
        self.codomain = constraints.independent(constraints.integer_interval(0, categories - 1), 1)

    def one_hot(self, x: Tensor) -> Tensor:
        """Categories (...) as (..., K) of the weights' dtype; zeros for what is no category.

        Raises:
            ValueError: x is not of an integer type.
        """
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise ValueError(f"categories are integers 0..{self.categories - 1}, got dtype {x.dtype}")
        return (x[..., None] == torch.arange(self.categories, device=x.device)).to(self.dtype)

    def draw(self, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        r"""$z \sim q(z|x)$, (..., N, d), and $\sum_i \ln p(x_i|z_i) - \ln q(z|x)$, (...)."""
        raise TypeError(f"{type(self).__name__} does not define draw")

    def log_decoder(self, z: Tensor) -> Tensor:
        r"""$\ln p(c|z_i)$ of all categories, (..., N, K)."""
        raise TypeError(f"{type(self).__name__} does not define log_decoder")

    def log_q(self, z: Tensor, one_hot: Tensor) -> Tensor:
        r"""$\ln q(z|x)$, (...)."""
        raise TypeError(f"{type(self).__name__} does not define log_q")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        one_hot = self.one_hot(x)
        z, log_ratio = self.draw(one_hot)
        return z, log_ratio.masked_fill((one_hot.sum(-1) == 0).any(-1), -torch.inf)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_p = self.log_decoder(z)
        x = (log_p - torch.empty_like(log_p).exponential_().log()).argmax(-1)  # a draw: the Gumbel-max trick
        one_hot = self.one_hot(x)
        return x, self.log_q(z, one_hot) - (log_p * one_hot).sum((-2, -1))


def clouds(dim: int, categories: int) -> Elementwise:
    """A place and a scale in R^dim for each category, read from its one-hot vector."""
    layer = Elementwise(dim, Affine(), context_dim=categories)
    with torch.no_grad():  # those that start in one place would have to be told apart first
        layer.params[:, 0] = -1.0
        layer.shift.weight[1::2].normal_(std=2.0)
    return layer


class FactorisedEncoding(CategoricalEncoding):
    r"""Each category has a cloud of its own, $q(z|x) = \prod_i q(z_i|x_i)$, and Bayes' rule says which category a point
    is of:

    $$p(x_i|z_i) = \frac{\tilde p(x_i)\, q(z_i|x_i)}{\sum_c \tilde p(c)\, q(z_i|c)}$$

    (Lippe and Gavves 2021, arXiv:2006.09790). Clouds that share points cost likelihood
    where categories depend on each other, since each point is read by itself. With no layers, clouds are logistic: K
    means and scales, the paper's mixture of logistics. With layers, they are bent by affine couplings that read the
    category, its linear flows.

    Cost: of `draw` and `log_decoder`, K densities at each place.

    Args:
        length: N.
        categories: K.
        dim: d.
        layers: Number of couplings.

    Raises:
        ValueError: No place, fewer than two categories, or no dimension.

    Example:
        >>> import torch
        >>> from flowlib import FactorisedEncoding
        >>> z, log_ratio = FactorisedEncoding(3, 4).inverse(torch.tensor([[0, 3, 3]])); z.shape, log_ratio.shape
        (torch.Size([1, 3, 2]), torch.Size([1]))
    """

    def __init__(self, length: int, categories: int, dim: int = 2, *, layers: int = 0):
        super().__init__(length, categories, dim)
        self.noise = StandardLogistic(dim)
        self.clouds = Compose(*(Coupling(dim, Affine(), hidden=(32,), swap=k % 2 == 1, context_dim=categories)
                                for k in range(layers)), clouds(dim, categories))
        self.log_prior = nn.Parameter(torch.zeros(categories))

    def _log_joint(self, z):
        r"""$\ln \tilde p(c) q(z_i|c)$ of all categories, (..., N, K)."""
        each = torch.eye(self.categories, dtype=z.dtype, device=z.device)
        noise, log_det = self.clouds.inverse(z[..., None, :], each)
        return self.log_prior.log_softmax(-1) + self.noise.log_prob(noise) + log_det

    def draw(self, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        noise = self.noise.rsample(one_hot.shape[:-1])
        z, log_det = self.clouds(noise, one_hot)
        prior = (self.log_prior.log_softmax(-1) * one_hot).sum(-1)
        own = prior + self.noise.log_prob(noise) - log_det
        # The own cloud's density by the way that z came: nothing is to be gained from an inverse that is inexact
        joint = torch.where(one_hot > 0, own[..., None], self._log_joint(z))
        return z, (prior - joint.logsumexp(-1)).sum(-1)

    def log_decoder(self, z: Tensor) -> Tensor:
        return self._log_joint(z).log_softmax(-1)

    def log_q(self, z: Tensor, one_hot: Tensor) -> Tensor:
        return ((self._log_joint(z) - self.log_prior.log_softmax(-1)) * one_hot).sum((-2, -1))


class VariationalEncoding(CategoricalEncoding):
    r"""$q(z|x)$ is a flow over all N points together that reads all of x, and the decoder $p(x_i|z_i)$ is a network of
    its own (Lippe and Gavves 2021, arXiv:2006.09790). The flow has mixture couplings on sets, taken in
    their cheap direction, and then a place and a scale for each category.

    Cost: `layers` network passes in `inverse`; in `forward` also a root search, for the log-det.

    Args:
        length: N.
        categories: K.
        dim: d.
        layers: Number of couplings.
        hidden: Width of all networks.

    Raises:
        ValueError: No place, fewer than two categories, no dimension, or no layer.

    Example:
        >>> import torch
        >>> from flowlib import VariationalEncoding
        >>> VariationalEncoding(3, 4).log_decoder(torch.zeros(3, 2))[0].exp().tolist()  # at the start it knows nothing
        [0.25, 0.25, 0.25, 0.25]
    """

    def __init__(self, length: int, categories: int, dim: int = 2, *, layers: int = 4, hidden: int = 64):
        super().__init__(length, categories, dim)
        self.noise = StandardLogistic(length, dim)
        self.bend = Compose(*(Inverse(SetCoupling(
            (length, dim), LogisticMixtureCDF(4), hidden=hidden, swap=k % 2 == 1,
            context_shape=(length, categories))) for k in range(layers)))
        self.place = clouds(dim, categories)
        self.decoder = MLP(dim, categories, (hidden, hidden))

    def draw(self, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        noise = self.noise.rsample(one_hot.shape[:-2])
        bent, log_det = self.bend(noise, one_hot)
        z, stretch = self.place(bent, one_hot)
        own = (self.log_decoder(z) * one_hot).sum((-2, -1))
        return z, own - self.noise.log_prob(noise) + log_det + stretch.sum(-1)

    def log_decoder(self, z: Tensor) -> Tensor:
        return self.decoder(readable(z)).to(z.dtype).log_softmax(-1)

    def log_q(self, z: Tensor, one_hot: Tensor) -> Tensor:
        bent, stretch = self.place.inverse(z, one_hot)
        noise, log_det = self.bend.inverse(bent, one_hot)
        return self.noise.log_prob(noise) + log_det + stretch.sum(-1)
