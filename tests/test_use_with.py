"""The scripts of book/use_with.md run as they are printed, where the packages that they name are installed."""
import ast
import re
from pathlib import Path

import pytest
import torch

import flowlib as fl

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "use_with.md").read_text()
SCRIPTS = dict(re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE, re.M | re.S))


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """sbi leaves a folder of logs where it runs."""
    monkeypatch.chdir(tmp_path)


def run(title):
    """What the script leaves, by name; skipped where a package is missing."""
    script = SCRIPTS[title]
    for node in ast.parse(script).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            pytest.importorskip(name if name.startswith("flowlib") else name.split(".")[0])
    left = {}
    exec(compile(script, f"use_with.md: {title}", "exec"), left)
    return left


def test_every_script_has_its_test():
    tested = re.findall(r'^    left = run\("(.+)"\)$', Path(__file__).read_text(), re.M)
    assert sorted(tested) == sorted(SCRIPTS)


def test_torch():
    left = run("torch.distributions")
    assert left["p"].support.check(left["x"]).all() and left["p"].log_prob(left["x"]).isfinite().all()


def test_scikit_learn():
    left = run("scikit-learn")
    on, off = left["density"]
    assert on > 0.1 > 1e-3 > off


def test_sbi():
    left = run("sbi")
    draws = left["draws"]  # of a normal law with deviation 0.3 in a box: mean 0.72 there
    assert draws.abs().max() <= 1 and abs(draws[:, 0].mean() - 0.72) < 0.1 and abs(draws[:, 1].mean()) < 0.1
    assert left["calibration"]["ks_pvals"].min() > 1e-3
    assert left["posterior"].leakage_correction(torch.tensor([140.0, 50.0])) == 1
    flow = left["inference"]._neural_net.flow
    log_p = flow.log_prob(torch.tensor([[1.5, 0.0], [0.5, 0.0]]), torch.zeros(2))
    assert log_p[0] == -torch.inf and log_p[1].isfinite()


def test_estimator_of_sbi():
    pytest.importorskip("sbi")
    from flowlib.sbi import FlowEstimator

    theta, x = 5 + 2 * torch.randn(200, 3), 100 + 50 * torch.randn(200, 4, 2)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 5))
    estimator = FlowEstimator(fl.RealNVP, theta, x, embedding_net=net)
    assert estimator.loss(theta[:7], x[:7]).shape == (7,) and estimator.embedding_net is net
    assert estimator.log_prob(theta[:6].reshape(2, 3, 3), x[:3]).shape == (2, 3)
    assert estimator.log_prob(theta[:6].reshape(2, 3, 3), x[:1]).shape == (2, 3)
    draws, log_p = estimator.sample_and_log_prob((2, 5), x[:3])
    assert draws.shape == estimator.sample((2, 5), x[:3]).shape == (2, 5, 3, 3) and not draws.requires_grad
    assert torch.allclose(estimator.log_prob(draws.reshape(10, 3, 3), x[:3]).reshape(2, 5, 3), log_p, atol=1e-4)
    again = estimator.flow.log_prob(theta, net((x - x.mean(0)) / x.std(0)))
    assert torch.allclose(estimator.loss(theta, x), -again)
    with pytest.raises(ValueError, match="[Ss]hape"):
        estimator.loss(theta, x[:, :3])


def test_pyro():
    left = run("Pyro")
    elbo = left["elbo"]
    assert sum(elbo[-20:]) / 20 > -35 > elbo[0]
    assert left["z"].shape == (5, 2)


def test_samplers():
    left = run("BlackJAX, ArviZ and other samplers")
    mean = left["flow"].sample(4000).mean(0)
    assert abs(mean[0]) < 0.3 and abs(mean[1] - 1) < 0.4


def test_what_the_comparison_says_of_versions_is_what_is_tried():
    """zuko, nflows and normflows are timed beside flowlib: the page names versions that `make bench` takes."""
    page = (ROOT / "book" / "how_flowlib_differs.md").read_text()
    floors = dict(re.findall(r"^(\w+)>=([\d.]+)$", (ROOT / "requirements-bench.txt").read_text(), re.M))
    for name in ("zuko", "nflows", "normflows"):
        version = re.search(rf"\[{name}\]\([^)]*\) ([\d.]+)", page)
        assert version is not None and number(version[1]) >= number(floors[name])


def number(version):
    return tuple(map(int, version.split(".")))
