"""torch.func, forward mode and torch.compile over the vector layers: what holds row by row holds under a transform."""
import inspect
import re
from pathlib import Path

import pytest
import torch
from registry import randomise
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

import flowlib as fl

D = torch.float64
LAYERS = {
    "Planar": lambda: fl.Planar(3), "Sylvester": lambda: fl.Sylvester(3, 2), "Radial": lambda: fl.Radial(3),
    "Householder": lambda: fl.Householder(3, 2),
    "LinearIAF": lambda: fl.LinearIAF(3), "Rotation": lambda: fl.Rotation(3),
    "mixture": lambda: fl.Elementwise(3, fl.LogisticMixtureCDF(3)),
    "Gaussian mixture": lambda: fl.Elementwise(3, fl.GaussianMixtureCDF(3)), "Correlation": lambda: fl.Correlation(3),
    "spline": lambda: fl.Elementwise(3, fl.RationalQuadraticSpline()),
    "InverseCDF": lambda: fl.Inverse(fl.InverseCDF(torch.distributions.Normal(torch.zeros(3), torch.ones(3)))),
}
WAYS = pytest.mark.parametrize("way", ["density", "sampling"])  # each has the root search of some layer
ALL = pytest.mark.parametrize("name", LAYERS)


def flow_and_rows(name, way):
    f = LAYERS[name]()
    f = fl.Inverse(f) if way == "sampling" and name != "InverseCDF" else f
    with torch.no_grad():
        for p in f.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return fl.Flow(fl.StandardNormal(3), f).double(), 0.9 * torch.rand(4, 3, dtype=D)


@WAYS
@ALL
def test_transforms_agree_with_autograd(name, way):
    flow, x = flow_and_rows(name, way)
    log_p = flow.log_prob(x)
    x = x.requires_grad_()
    score = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)[0]
    second = torch.stack([torch.autograd.grad(score[:, i].sum(), x, retain_graph=True)[0] for i in range(3)], 1)
    x, score, second = x.detach(), score.detach(), second.detach()
    v = torch.randn(3, dtype=D)
    assert torch.allclose(vmap(flow.log_prob)(x), log_p)
    assert torch.allclose(vmap(grad(flow.log_prob))(x), score)
    assert torch.allclose(jvp(flow.log_prob, (x[0],), (v,))[1], score[0] @ v)
    assert torch.allclose(vmap(hessian(flow.log_prob))(x), second)
    assert torch.allclose(jacrev(jacrev(flow.log_prob))(x[0]), second[0])
    assert torch.allclose(jacfwd(flow.encode)(x[0]), fl.checks.jacobian(flow.encode, x)[0])


@WAYS
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "InverseCDF"])  # which has no parameters
def test_gradients_of_every_row(name, way):
    flow, x = flow_and_rows(name, way)
    params = {k: v.detach() for k, v in flow.named_parameters()}
    rows = vmap(grad(lambda p, row: functional_call(flow, p, (row,))), (None, 0))(params, x)
    for i, row in enumerate(x):
        flow.zero_grad()
        flow.log_prob(row).backward()
        assert all(torch.allclose(rows[k][i], p.grad) for k, p in flow.named_parameters())


@pytest.mark.parametrize("name, way", [("Planar", "density"), ("Sylvester", "density"), ("mixture", "sampling")])
def test_root_searches_compile(name, way):
    """With one break in the graph each, for the search."""
    torch._dynamo.reset()
    flow, x = flow_and_rows(name, way)
    compiled = torch.compile(flow, backend="eager")
    assert torch.allclose(compiled(x), flow.log_prob(x))
    params = list(flow.parameters())
    for a, b in zip(*(torch.autograd.grad(method(x).sum(), params) for method in (compiled, flow.log_prob))):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("name", ["Planar", "mixture"])
def test_third_derivatives_through_a_root(name):
    """Those of a Hessian's trace with respect to a parameter, as score matching takes them: against differences."""
    flow, x = flow_and_rows(name, "density" if name == "Planar" else "sampling")
    params = {k: v.detach() for k, v in flow.named_parameters()}
    key, value = next(iter(params.items()))

    def trace(p):
        return hessian(lambda row: functional_call(flow, {**params, key: p}, (row,)))(x[0]).trace()

    step = torch.randn_like(value)
    difference = (trace(value + 1e-5 * step) - trace(value - 1e-5 * step)) / 2e-5
    assert (grad(trace)(value) * step).sum().item() == pytest.approx(difference.item(), rel=1e-5)


MODELS = {name: cls for name, cls in vars(fl).items() if isinstance(cls, type) and issubclass(cls, fl.Flow)
          and cls not in (fl.Flow, fl.Pixels)}
# For a root, in sampling: a search looks at its bracket or residual and stays out of the graph
SEARCHES = {"CategoricalFlow", "ContinuousFlow", "FlowPlusPlus", "GaussianCopula", "GaussianizationFlow", "IResNet",
            "MintNet", "NAF", "RBIG", "ResidualFlow", "ResidualFlowImage"}
SMALL = {"layers": 1, "scales": 1, "steps": 1, "components": 2,
         "log_det": "exact"}  # a series of random length breaks the graph of a density, block by block


def small(cls):
    names = inspect.signature(cls.__init__).parameters
    images = "shape" in names
    options = SMALL | {"categories": 3, "hidden": 4 if images or cls is fl.CategoricalFlow else (4,)}
    return cls((1, 4, 4) if images else 3, **{key: value for key, value in options.items() if key in names})


def test_the_page_names_what_stays_out_of_the_graph():
    page = (Path(__file__).parents[1] / "book" / "use_with.md").read_text()
    said = page[page.index("sampling from"):page.index("These search a root")]
    assert set(re.findall(r"`(\w+)`", said)) == SEARCHES | {"Planar", "Sylvester"}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_one_graph(name):
    """Density, gradients of a training step, and sampling, each in one graph without a break."""
    torch._dynamo.reset()
    flow = small(MODELS[name])
    randomise(flow)
    x = flow.sample(4)
    flow.initialize(x)
    params = list(flow.parameters())
    compiled = torch.compile(lambda x: (flow(x), None if name in SEARCHES else flow.sample(4)), backend="eager",
                             fullgraph=True)
    losses = []
    for call in (lambda: compiled(x)[0], lambda: flow(x)):
        torch.manual_seed(0)  # of dequantization
        losses.append(call())
    assert torch.allclose(*losses, rtol=1e-4, atol=1e-4)
    grads = [torch.autograd.grad(loss.sum(), params, allow_unused=True) for loss in losses]
    for a, b in zip(*grads):
        assert (a is None and b is None) or torch.allclose(a, b, rtol=1e-3, atol=1e-3)
    if name not in SEARCHES:
        assert compiled(x)[1].shape == x.shape
