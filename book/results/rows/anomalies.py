"""Find what does not belong: `python book/results/rows/anomalies.py higgs-small flow --seed 0`.

Every method sees four fifths of the normal rows, and then scores the others and all abnormal rows; what is printed is
the area under the ROC curve of that score, 1/2 for guessing. Columns are standardised for all. Where a method has a
number to choose (components, bandwidth, weight decay), five-fold cross-validation of the likelihood of normal rows
chooses it: no abnormal row is seen before the end. The seed draws the rows and is that of the methods.
"""
import argparse

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity, LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowlib import data
from flowlib.sklearn import FlowDensity


def higgs():
    """Collisions without a Higgs boson are normal."""
    x, y, _ = zip(*(data.load("higgs-small", split) for split in data.SPLITS))
    return np.concatenate(x), np.concatenate(y) == 1


def cancer():
    """Benign tumours are normal."""
    x, y = load_breast_cancer(return_X_y=True)
    return x, y == 0


METHODS = {
    "flow": lambda seed: GridSearchCV(FlowDensity("maf", layers=2, hidden=(32,), steps=500, random_state=seed),
                                      {"weight_decay": [0.1, 1.0, 3.0]}),
    "gaussian": lambda seed: GaussianMixture(1, reg_covar=1e-3, random_state=seed),
    "mixture": lambda seed: GridSearchCV(GaussianMixture(reg_covar=1e-3, random_state=seed),
                                         {"n_components": [1, 2, 4, 8, 16]}),
    "kernel": lambda seed: GridSearchCV(KernelDensity(), {"bandwidth": np.logspace(-1, 1, 11)}),
    "forest": lambda seed: IsolationForest(random_state=seed),
    "factor": lambda seed: LocalOutlierFactor(novelty=True),
}
TABLES = {"higgs-small": higgs, "cancer": cancer}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("table", choices=TABLES)
parser.add_argument("method", choices=METHODS)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

x, abnormal = TABLES[args.table]()
normal = np.random.RandomState(args.seed).permutation(np.flatnonzero(~abnormal))
train, rest = np.split(normal, [len(normal) * 4 // 5])
model = make_pipeline(StandardScaler(), METHODS[args.method](args.seed)).fit(x[train])
test = np.concatenate([rest, np.flatnonzero(abnormal)])
if args.method not in ("forest", "factor"):  # whose score is no density
    print("log-likelihood of normal rows", model.score_samples(x[rest]).mean())
print(roc_auc_score(~abnormal[test], model.score_samples(x[test])))
