"""The laws over the registry: every bijection, D in {1, 2, 3, 8}, float64 and float32, with and without context."""
import pytest
import torch

import flowlib as fl
import laws
from registry import ENTRIES, cases

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def over(law, dims=(1, 2, 3, 8)):
    return pytest.mark.parametrize("entry, dim, width", cases(law, dims))


def drawn(entry, dim, width, dtype=torch.float64):
    """A bijection, latents and a context of one entry."""
    f = entry.bijection(dim, width, dtype)
    z = entry.z(f, dim).to(dtype)
    return f, z, torch.randn(len(z), width, dtype=dtype) if width else None


@DTYPES
@over("round trip")
def test_round_trip(entry, dim, width, dtype):
    laws.round_trip(*drawn(entry, dim, width, dtype))


@DTYPES
@over("log-det")
def test_log_det_is_the_jacobians(entry, dim, width, dtype):
    laws.log_det_is_the_jacobians(*drawn(entry, dim, width, dtype), volume_preserving=entry.volume_preserving)


@DTYPES
@over("cancel")
def test_log_dets_cancel(entry, dim, width, dtype):
    laws.log_dets_cancel(*drawn(entry, dim, width, dtype))


@over("rows")
def test_rows_are_independent(entry, dim, width):
    laws.rows_are_independent(*drawn(entry, dim, width))


@over("shape")
def test_any_leading_shape(entry, dim, width):
    laws.any_leading_shape(*drawn(entry, dim, width))


@over("gradient")
def test_parameters_get_gradients(entry, dim, width):
    laws.parameters_get_gradients(*drawn(entry, dim, width))


@over("eval")
def test_eval_equals_train(entry, dim, width):
    laws.eval_equals_train(*drawn(entry, dim, width))


@over("state")
def test_state_is_complete(entry, dim, width):
    f, z, context = drawn(entry, dim, width)
    laws.state_is_complete(f, lambda: entry.make(dim, width).to(z.dtype), z, context)


@DTYPES
@over("save", dims=(2, 3))
def test_save_and_load(entry, dim, width, dtype):
    flow = entry.flow(dim, width, dtype)
    context = torch.randn(width, dtype=dtype) if width else None
    laws.save_and_load(flow, flow.sample(8, context), context)


@over("integral", dims=(2,))
def test_integrates_to_one(entry, dim, width):
    context = torch.randn(width, dtype=torch.float64) if width else None
    laws.integrates_to_one(entry.flow(dim, width), context, entry.grid)


@DTYPES
@over("deep", dims=(2, 8))
def test_32_layers_at_3x_weights_stay_finite(entry, dim, width, dtype):
    layers = []
    for k in range(32 // entry.layers):
        layers.append(entry.bijection(dim, width, dtype, scale=3.0, seed=k))
        if layers[-1].event_ndim == 1:
            layers.append(fl.Permutation(dim))
        elif layers[-1].latent_ndim == 1:  # a multi-scale model: its image is the next one's vector of latents
            layers.append(fl.Inverse(fl.Reshape(layers[-1].latent_shape, layers[-1].event_shape)))
    layers = layers if layers[-1].event_ndim == layers[0].latent_ndim else layers[:-1]
    _, z, context = drawn(entry, dim, width, dtype)
    laws.stays_finite(fl.Compose(*layers), z, context)


@DTYPES
@over("dtype", dims=(2, 3))
def test_dtype_is_kept(entry, dim, width, dtype):
    laws.dtype_is_kept(*drawn(entry, dim, width, dtype))


@over("autocast", dims=(3,))
def test_log_dets_survive_autocast(entry, dim, width):
    laws.log_dets_survive_autocast(*drawn(entry, dim, width, torch.float32))


@over("errors", dims=(2, 3))
def test_bad_input_is_refused(entry, dim, width):
    laws.bad_input_is_refused(*drawn(entry, dim, width))


@over("initialize", dims=(2, 3))
def test_initialize_maps(entry, dim, width):
    laws.initialize_maps(*drawn(entry, dim, width))


def test_every_public_bijection_is_in_the_registry():
    """A class that is added to the package without an entry fails here."""
    public = {getattr(fl, name) for name in fl.__all__}
    bijections = {c for c in public if isinstance(c, type) and issubclass(c, fl.Bijection)} - {fl.Bijection}
    seen = set()
    for entry in ENTRIES:
        seen |= {type(m) for m in entry.make(entry.dims[-1], None).modules()}
    elsewhere = {fl.Dequantize, fl.VariationalDequantize, fl.Reshape}  # test_images.py: random, and of another shape
    assert bijections - seen - elsewhere == set()
    models = {c for c in public if isinstance(c, type) and issubclass(c, fl.Flow)} - {fl.Flow, fl.Pixels}
    assert {m.__name__ for m in models} <= {entry.name for entry in ENTRIES}
