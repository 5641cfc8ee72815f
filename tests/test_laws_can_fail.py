"""Negative controls: for each kind of error that flow code is known for, a map that has it, and the law that sees
it."""
import weakref

import laws
import pytest
import torch
from torch import nn

import flowlib as fl

Z = torch.linspace(-1.5, 1.5, 24, dtype=torch.float64).reshape(8, 3)


class Twice(fl.Bijection):
    """x = 2z, right; the controls below break one line each."""

    def forward(self, z, context=None):
        return 2 * z, z.new_full(z.shape[:-1], 2.0).log() * z.shape[-1]

    def inverse(self, x, context=None):
        return x / 2, -x.new_full(x.shape[:-1], 2.0).log() * x.shape[-1]


class NoAbsoluteValue(fl.Bijection):
    """x = -z^3 - z with ln of the slope instead of ln |slope|: NaN."""

    def forward(self, z, context=None):
        return -(z**3) - z, (-3 * z * z - 1).log().sum(-1)

    def inverse(self, x, context=None):
        z = -fl.numerics.solve_monotone(lambda v: (v**3 + v, 3 * v * v + 1), x, -9.0, 9.0)
        return z, -(3 * z * z + 1).log().sum(-1)


class DroppedDeterminant(Twice):
    def forward(self, z, context=None):
        return 2 * z, z.new_zeros(z.shape[:-1])


class WrongSign(Twice):
    def inverse(self, x, context=None):
        return x / 2, super().forward(x)[1]


class WrongSignBothWays(Twice):
    """The log-dets still cancel: only autograd sees it."""

    def forward(self, z, context=None):
        return 2 * z, -super().forward(z)[1]

    def inverse(self, x, context=None):
        return x / 2, -super().inverse(x)[1]


class MeanLogDet(Twice):
    def forward(self, z, context=None):
        return 2 * z, super().forward(z)[1] / z.shape[-1]


class SummedOverTheBatch(Twice):
    def forward(self, z, context=None):
        return 2 * z, super().forward(z)[1].sum()


class WrongInverse(Twice):
    def inverse(self, x, context=None):
        return x / 2 + 1e-3, super().inverse(x)[1]


class MixesRows(Twice):
    def forward(self, z, context=None):
        return 2 * z + z.mean(0), super().forward(z)[1]


class OneBatchAxis(Twice):
    def forward(self, z, context=None):
        return torch.einsum("ni->ni", 2 * z), super().forward(z)[1]


class DetachedParameter(fl.Bijection):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, z, context=None):
        return z + self.shift.detach() + 0 * self.shift, z.new_zeros(z.shape[:-1])


class NoisyInTraining(Twice):
    def forward(self, z, context=None):
        x, log_det = super().forward(z)
        return (x + 0.1 if self.training else x), log_det


class BreaksAboveTwo(fl.Coupling):
    """A coupling whose second part is as long as the first, whatever D: right for D = 2, and for no odd D."""

    def __init__(self, dim):
        super().__init__(dim, fl.Affine())
        self.event_shape = self.latent_shape = None  # or its own checks would see it

    def _move(self, value, context, g):
        cut = value.shape[-1] // 2
        kept, moved = value[..., :cut], value[..., cut : 2 * cut]
        params = kept.new_ones(*moved.shape, self.elementwise.n_params)
        moved, log_slope = g(moved, params)
        return torch.cat([kept, moved], -1), log_slope.sum(-1)


class KeepsItsShiftElsewhere(fl.Bijection):
    shifts = weakref.WeakKeyDictionary()

    def __init__(self):
        super().__init__()
        self.shifts[self] = torch.randn(())

    def forward(self, z, context=None):
        return z + self.shifts[self], z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        return x - self.shifts[self], x.new_zeros(x.shape[:-1])


class ForgetsItsPermutation(fl.Bijection):
    """The order is a plain attribute: a new object with the same state draws another one."""

    def __init__(self):
        super().__init__()
        self.order = torch.randperm(3)

    def forward(self, z, context=None):
        return z[..., self.order], z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        return x[..., self.order.argsort()], x.new_zeros(x.shape[:-1])


class Overflows(fl.Bijection):
    def forward(self, z, context=None):
        return (100 * z).exp().exp(), z.sum(-1)

    def inverse(self, x, context=None):
        return x, x.sum(-1)


class CastsItsOutput(Twice):
    def forward(self, z, context=None):
        return (2 * z).float(), super().forward(z)[1]


class TakesAnything(fl.Planar):
    def check(self, *args, **kwargs):
        pass


class RemembersItsWeight(fl.Bijection):
    """The parameter that was there at the start, whatever the module holds now."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.ones(3, dtype=torch.float64))
        kept = self.shift
        self.read = lambda: kept

    def forward(self, z, context=None):
        return z + self.read(), z.new_zeros(z.shape[:-1])

    def inverse(self, x, context=None):
        return x - self.read(), x.new_zeros(x.shape[:-1])


class BranchesOnAValue(Twice):
    def forward(self, z, context=None):
        return super().forward(z) if z.sum() > -torch.inf else (z, z.sum(-1))


class MakesTensorsOnTheCpu(Twice):
    def forward(self, z, context=None):
        return z * torch.tensor([2.0, 2.0, 2.0], dtype=z.dtype, device="cpu"), super().forward(z)[1]


class Coarse(Twice):
    """Rounded to integers, which nobody would take for half precision."""

    def forward(self, z, context=None):
        x, log_det = super().forward(z)
        return (x if z.dtype == torch.float64 else x.round()), log_det


class Bfloat16LogDet(Twice):
    def forward(self, z, context=None):
        return 2 * z, super().forward(z)[1].to(torch.bfloat16)


class InitializesOneWay(Twice):
    def initialize(self, batch, context=None, inverse=True):
        return self.inverse(batch)[0]


CONTROLS = [
    (laws.round_trip, WrongInverse),
    (laws.log_det_is_the_jacobians, NoAbsoluteValue),
    (laws.log_det_is_the_jacobians, DroppedDeterminant),
    (laws.log_det_is_the_jacobians, WrongSign),
    (laws.log_det_is_the_jacobians, WrongSignBothWays),
    (laws.log_det_is_the_jacobians, MeanLogDet),
    (laws.log_det_is_the_jacobians, SummedOverTheBatch),
    (laws.log_dets_cancel, WrongSign),
    (laws.log_dets_cancel, DroppedDeterminant),
    (laws.rows_are_independent, MixesRows),
    (laws.any_leading_shape, OneBatchAxis),
    (laws.any_leading_shape, SummedOverTheBatch),
    (laws.parameters_get_gradients, DetachedParameter),
    (laws.eval_equals_train, NoisyInTraining),
    (laws.stays_finite, Overflows),
    (laws.dtype_is_kept, CastsItsOutput),
    (laws.initialize_maps, InitializesOneWay),
    (laws.copies_agree, RemembersItsWeight),
    (laws.vmap_equals_the_batch, BranchesOnAValue),
    (laws.vmap_equals_the_batch, MixesRows),
    (laws.runs_on_meta, MakesTensorsOnTheCpu),
]


def test_the_unbroken_map_passes():
    for law in {law for law, _ in CONTROLS} - {laws.parameters_get_gradients}:  # it has none
        law(laws.Case(Twice(), Z))
    laws.log_dets_survive_autocast(laws.Case(Twice(), Z.float()))


@pytest.mark.parametrize("law, broken", CONTROLS, ids=[f"{law.__name__}-{b.__name__}" for law, b in CONTROLS])
def test_law_can_fail(law, broken):
    with pytest.raises((AssertionError, RuntimeError)):
        law(laws.Case(broken(), Z))


def test_cancelling_is_not_enough():
    """Why the laws ask autograd: this map's two log-dets cancel, and both are wrong."""
    laws.log_dets_cancel(laws.Case(WrongSignBothWays(), Z))


def test_a_coupling_that_breaks_above_two_dimensions():
    broken = lambda dim: BreaksAboveTwo(dim).double()  # noqa: E731
    laws.round_trip(laws.Case(broken(2), Z[:, :2]))
    with pytest.raises((AssertionError, RuntimeError)):
        laws.round_trip(laws.Case(broken(3), Z))


def test_a_permutation_outside_the_state():
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        laws.state_is_complete(laws.Case(ForgetsItsPermutation(), Z), ForgetsItsPermutation)
    laws.state_is_complete(laws.Case(fl.Permutation(3), Z), lambda: fl.Permutation(3))


def test_a_permutation_outside_the_file():
    flow = fl.Flow(fl.Uniform(torch.arange(3.0).double(), torch.arange(3.0).double() + 1), ForgetsItsPermutation())
    x = flow.sample(8)
    with pytest.raises(TypeError, match="order"):  # saving sees an attribute
        for _ in range(5):  # one draw in six is the same order
            laws.save_and_load(flow, x)


def test_a_number_outside_the_object():
    flow = fl.Flow(fl.StandardNormal(3).double(), KeepsItsShiftElsewhere())
    with pytest.raises(AssertionError):
        laws.save_and_load(flow, Z)


def test_a_density_that_does_not_integrate_to_one():
    with pytest.raises(AssertionError):
        laws.integrates_to_one(fl.Flow(fl.StandardNormal(2).double(), DroppedDeterminantBothWays()))


class DroppedDeterminantBothWays(DroppedDeterminant):
    def inverse(self, x, context=None):
        return x / 2, x.new_zeros(x.shape[:-1])


def test_a_layer_that_takes_any_input():
    with pytest.raises((AssertionError, RuntimeError)):
        laws.bad_input_is_refused(laws.Case(TakesAnything(3).double(), Z))


class InfinityMinusInfinity(Twice):
    def inverse(self, x, context=None):
        return x.pow(4) - x.pow(5) / 2, super().inverse(x)[1]


def test_a_large_input_that_gives_nan():
    base = fl.StandardNormal(3)
    laws.finite_inputs_have_a_density(fl.Flow(base, Twice()))
    with pytest.raises(AssertionError):
        laws.finite_inputs_have_a_density(fl.Flow(base, InfinityMinusInfinity()))


def test_a_map_that_is_coarse_in_half_precision():
    laws.half_precision_is_refused_or_right(laws.Case(Twice(), Z), torch.bfloat16)
    with pytest.raises(AssertionError):
        laws.half_precision_is_refused_or_right(laws.Case(Coarse(), Z), torch.float16)


def test_a_low_precision_log_det():
    with pytest.raises(AssertionError):
        laws.log_dets_survive_autocast(laws.Case(Bfloat16LogDet(), Z.float()))
