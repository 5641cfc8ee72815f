"""`flowlib.sklearn.FlowDensity` keeps scikit-learn's rules, and is the density of the rows as they were given."""
import importlib
import io
import sys

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import flowlib as fl
from flowlib.sklearn import FlowDensity

TINY = dict(layers=2, hidden=(8,), steps=3, lr=1e-2, validation_fraction=0)
X = np.random.default_rng(0).normal([100.0, -3.0, 0.01], [20.0, 1.0, 1e-3], (60, 3))


@parametrize_with_checks([FlowDensity(flow, layers=1, hidden=(4,), steps=2) for flow in ("maf", "realnvp")])
def test_scikit_learn_has_no_complaint(estimator, check):
    check(estimator)


def test_the_volume_of_standardising_is_counted():
    """A flow that does nothing is the Gaussian of the columns' own means and deviations."""
    model = FlowDensity("realnvp", layers=2, hidden=(8,), steps=1, lr=1e-30, validation_fraction=0).fit(X)
    exact = torch.distributions.Normal(torch.tensor(X.mean(0)), torch.tensor(X.std(0))).log_prob(torch.tensor(X)).sum(1)
    found = model.score_samples(X)
    assert found.dtype == np.float64 and np.allclose(found, exact.numpy(), atol=1e-9)
    assert model.score(X) == pytest.approx(exact.mean().item())
    drawn = model.sample(20_000, random_state=0)
    assert drawn.dtype == np.float64 and np.allclose(drawn.mean(0), X.mean(0), atol=0.05 * X.std(0).max(), rtol=0.05)
    assert np.allclose(drawn.std(0), X.std(0), rtol=0.05)


def test_the_density_does_not_depend_on_units():
    units = np.array([1000.0, 0.1, 7.0])
    model, other = (FlowDensity("nsf", **TINY, random_state=0).fit(rows) for rows in (X, X * units))
    assert np.allclose(other.score_samples(X * units), model.score_samples(X) - np.log(units).sum(), atol=1e-4)


def test_one_seed_one_model_whatever_ran_before():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = FlowDensity("nsf", **TINY, random_state=3).fit(X)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(2)
    again, other = clone(first).fit(X), FlowDensity("nsf", **TINY, random_state=4).fit(X)
    assert np.array_equal(first.score_samples(X), again.score_samples(X))
    assert not np.allclose(first.score_samples(X), other.score_samples(X))
    assert np.array_equal(first.sample(4), again.sample(4)) and first.sample(2, random_state=1).shape == (2, 3)


def test_pickled_by_joblib_and_saved_by_flowlib(tmp_path):
    model, file = FlowDensity("nsf", **TINY, random_state=0).fit(X), io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    assert np.array_equal(joblib.load(file).score_samples(X), model.score_samples(X))
    fl.save(model.flow_, tmp_path / "flow")
    loaded = fl.load(tmp_path / "flow").log_prob(torch.from_numpy(X)).detach().numpy()
    assert np.array_equal(loaded, model.score_samples(X))


def test_in_a_grid_search_of_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), FlowDensity("nsf", **TINY, random_state=0))
    search = GridSearchCV(pipeline, {"flowdensity__layers": [1, 2], "flowdensity__flow": ["realnvp", "nsf"]}, cv=2)
    assert search.fit(X).best_estimator_.score_samples(X).shape == (60,)
    assert np.isfinite(cross_val_score(FlowDensity("nsf", **TINY), X, cv=2)).all()


def test_training_helps_and_stops():
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 1)) ** [1, 2] + random.normal(size=(2000, 2)) / 9  # about a parabola
    train, test = rows[:1000], rows[1000:]
    model = FlowDensity("nsf", layers=2, hidden=(16,), steps=60, lr=2e-2, random_state=0).fit(train)
    assert model.score(test) > GaussianMixture().fit(train).score(test) + 0.3
    assert model.history_.val_loss and model.n_features_in_ == 2


@pytest.mark.parametrize("arguments, rows, words", [
    (dict(flow="nfs"), X, "unknown flow 'nfs'; known: maf, naf, nice, nsf, realnvp"),
    (dict(validation_fraction=1.0), X, r"validation_fraction must lie in \[0, 1\), got 1.0"),
    ({}, X * [1, 0, 1], r"columns \[1\] have one value each"),
    ({}, X[:1], "1 sample"), ({}, X * np.nan, "NaN"), (dict(steps=0), X, "steps must be positive"),
])
def test_bad_input_is_one_sentence(arguments, rows, words):
    with pytest.raises(ValueError, match=words):
        FlowDensity(**arguments).fit(rows)


def test_one_column_is_enough_for_an_autoregressive_flow():
    column = X[:, :1]
    assert FlowDensity(**TINY).fit(column).score_samples(column).shape == (60,)
    with pytest.raises(ValueError, match=r"1 feature\(s\)"):
        FlowDensity("nsf", **TINY).fit(column)


def test_a_function_makes_the_flow():
    model = FlowDensity(lambda dim: fl.RealNVP(dim, layers=1), steps=1).fit(X)
    assert isinstance(model.flow_, fl.Flow) and len(model.flow_.bijection) == 2


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "flowlib.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(ImportError, match=r"pip install 'scikit-learn>=1\.6'"):
        importlib.import_module("flowlib.sklearn")
