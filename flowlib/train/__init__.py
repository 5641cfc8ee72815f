"""Training: one loop in the open (`fit`), what it minimises (`NLL`, `ReverseKL`), and `python -m flowlib.train`.

Read `loop.py` first, and beside it `run.py`, which does what it says. `config.py` holds the settings, `batches.py` the
order of the data, `processes.py` device and processes, `checkpoint.py` the file that a killed run goes on from, and its
folder; `__main__.py` is the command, `build.py` makes its models and `pictures.py` its pictures. What it trains a model
with stands beside the model (`recipes`), and what a run is worth is measured in `evaluate`.
"""
from .config import Config, History, TrainingError
from .loop import fit
from .objectives import NLL, ReverseKL

__all__ = ["Config", "History", "NLL", "ReverseKL", "TrainingError", "fit"]
