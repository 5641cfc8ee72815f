"""Every test starts from the same seed and leaves the default dtype as it was."""
import pytest
import torch

# benchmarks need three other libraries (`make bench`); exercises hold notebooks to work on; a conftest is no test
collect_ignore = ["benchmarks", "exercises", "conftest.py"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def one_thread():
    """Bits are compared, and small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
