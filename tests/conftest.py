"""Every test starts from the same seed and leaves the default dtype as it was."""
import pytest
import torch

collect_ignore = ["benchmarks", "conftest.py"]  # need three other libraries (`make bench`); no tests, and the name of another one


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)
