"""The laws over the registry: every bijection, D in {1, 2, 3, 8}, float64 and float32, with and without context."""
import functools
from collections.abc import Callable
from dataclasses import dataclass

import laws
import pytest
import torch
from registry import DIMS, ENTRIES, cases, parameters

import flowlib as fl

DOUBLE, SINGLE = torch.float64, torch.float32


@dataclass(frozen=True)
class Law:
    """Where a law is asked."""

    holds: Callable  # of a laws.Case
    name: str  # as the registry's exemptions call it
    dims: tuple[int, ...] = DIMS
    dtypes: tuple[torch.dtype, ...] = (DOUBLE,)
    can_fail: Callable | None = None  # for which maps: one that it cannot fail for would only be counted as passed


LAWS = [
    Law(laws.round_trip, "round trip", dtypes=(DOUBLE, SINGLE)),
    Law(laws.log_det_is_the_jacobians, "log-det", dtypes=(DOUBLE, SINGLE)),
    Law(laws.log_dets_cancel, "cancel", dtypes=(DOUBLE, SINGLE)),
    Law(laws.rows_are_independent, "rows"),
    Law(laws.any_leading_shape, "shape"),
    Law(laws.parameters_get_gradients, "gradient", can_fail=parameters),
    Law(laws.copies_agree, "copies", dims=(3,)),
    Law(laws.vmap_equals_the_batch, "vmap", dims=(1, 3)),
    Law(laws.runs_on_meta, "meta", dims=(3,)),
    Law(laws.eval_equals_train, "eval", dims=(3,)),
    Law(laws.dtype_is_kept, "dtype", dims=(2, 3), dtypes=(DOUBLE, SINGLE)),
    Law(laws.bad_input_is_refused, "errors", dims=(2, 3)),
    Law(laws.initialize_maps, "initialize", dims=(2, 3)),
    Law(laws.log_dets_survive_autocast, "autocast", dims=(3,), dtypes=(SINGLE,)),
]


def drawn(entry, dim, width, dtype=DOUBLE):
    """A bijection, latents and a context of one entry."""
    f = entry.bijection(dim, width, dtype)
    z = entry.z(f, dim).to(dtype)
    return laws.Case(f, z, torch.randn(len(z), width, dtype=dtype) if width else None, entry.volume_preserving)


# the laws of one case come one after the other, and share what they compute
latest = functools.lru_cache(maxsize=1)(drawn)


def all_cases():
    for case in cases(None):
        entry, dim, width = case.values
        for dtype in (DOUBLE, SINGLE):
            for law in LAWS:
                asked = dim in law.dims and dtype in law.dtypes and law.name not in entry.exempt
                if asked and (law.can_fail is None or law.can_fail(entry.make(dim, width))):
                    yield pytest.param(entry, dim, width, dtype, law, id=f"{case.id}-{str(dtype)[6:]}-{law.name}")


@pytest.mark.parametrize("entry, dim, width, dtype, law", all_cases())
def test_law(entry, dim, width, dtype, law):
    law.holds(latest(entry, dim, width, dtype))


def over(law, dims=DIMS):
    return pytest.mark.parametrize("entry, dim, width", cases(law, dims))


DTYPES = pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=["float64", "float32"])


@over("state")
def test_state_is_complete(entry, dim, width):
    case = drawn(entry, dim, width)
    laws.state_is_complete(case, lambda: entry.make(dim, width).to(case.z.dtype))


@DTYPES
@over("save", dims=(2, 3))
def test_save_and_load(entry, dim, width, dtype):
    flow = entry.flow(dim, width, dtype)
    context = torch.randn(width, dtype=dtype) if width else None
    laws.save_and_load(flow, flow.sample(8, context), context)


@over("integral", dims=(2,))
def test_integrates_to_one(entry, dim, width):
    context = torch.randn(width, dtype=DOUBLE) if width else None
    laws.integrates_to_one(entry.flow(dim, width), context, entry.grid)


def tower(entry, dim, width, dtype, layers=64):
    """So many layers of one entry, each with parameters of its own at three times their initial size."""
    parts = []
    for k in range(-(-layers // entry.layers)):
        parts.append(entry.bijection(dim, width, dtype, scale=3.0, seed=k))
        if parts[-1].event_ndim == 1:
            parts.append(fl.Permutation(dim))
        elif parts[-1].latent_ndim == 1:  # a multi-scale model: its image is the next one's vector of latents
            parts.append(fl.Inverse(fl.Reshape(parts[-1].latent_shape, parts[-1].event_shape)))
    return fl.Compose(*(parts if parts[-1].event_ndim == parts[0].latent_ndim else parts[:-1]))


@torch.no_grad()
@over("deep", dims=(3, 8))
def test_64_layers_at_3x_weights_stay_finite_in_float64(entry, dim, width):
    case = drawn(entry, dim, width)
    laws.stays_finite(laws.Case(tower(entry, dim, width, DOUBLE), case.z, case.context))


@torch.no_grad()
@over("deep", dims=(3, 8))
def test_64_layers_at_3x_weights_have_a_density_in_float32(entry, dim, width):
    """An affine chain may overflow there, by its nature: to the density zero, not to NaN."""
    case = drawn(entry, dim, width, SINGLE)
    f = tower(entry, dim, width, SINGLE)
    flow = fl.Flow(fl.StandardNormal(*(f.latent_shape or (dim,))), f)
    laws.has_a_density(flow, case.forward[0].reshape(-1, *flow.event_shape), case.context)


@over("large", dims=(2, 3))
def test_finite_inputs_have_a_density(entry, dim, width):
    context = torch.randn(width) if width else None
    laws.finite_inputs_have_a_density(entry.flow(dim, width, SINGLE), context)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@over("half", dims=(3,))
def test_half_precision_is_refused_or_right(entry, dim, width, dtype):
    case = drawn(entry, dim, width)
    laws.half_precision_is_refused_or_right(laws.Case(entry.bijection(dim, width, scale=1.0), case.z, case.context),
                                            dtype)


def test_every_public_bijection_is_in_the_registry():
    """A class that is added to the package without an entry fails here."""
    public = {getattr(fl, name) for name in fl.__all__}
    bijections = {c for c in public if isinstance(c, type) and issubclass(c, fl.Bijection)} - {fl.Bijection}
    maps = {c for c in public if isinstance(c, type) and issubclass(c, fl.ElementwiseMap)} - {fl.ElementwiseMap}
    seen = set()
    for entry in ENTRIES:
        modules = list(entry.make(entry.dims[-1], None).modules())
        seen |= {type(m) for m in modules} | {type(m.elementwise) for m in modules if hasattr(m, "elementwise")}
    assert maps - seen == set()
    elsewhere = {fl.Dequantize, fl.VariationalDequantize, fl.Reshape,  # test_images.py: random, or of another shape
                 fl.CategoricalEncoding, fl.FactorisedEncoding, fl.VariationalEncoding}  # random: test_discrete.py
    assert bijections - seen - elsewhere == set()
    models = {c for c in public if isinstance(c, type) and issubclass(c, fl.Flow)} - {fl.Flow, fl.Pixels}
    assert {m.__name__ for m in models} <= {entry.name for entry in ENTRIES}
