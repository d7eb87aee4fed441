"""The same examples of property tests at every run, no time limit on a busy machine; one thread for each xdist worker."""

import os

import pytest
from hypothesis import settings

settings.register_profile("ucvgl", deadline=None, derandomize=True)
settings.load_profile("ucvgl")

if "PYTEST_XDIST_WORKER" in os.environ:  # workers that share the cores: with more threads each, all of them crawl
    os.environ["OMP_NUM_THREADS"] = "1"  # of what the tests start, too
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With `--dist loadgroup` a file's tests share a worker, for its fixtures; those that start processes share another."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws without a generator of its own is the same at every run, too."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run cache of the module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UCVGL_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield


@pytest.fixture
def fresh_runs(tmp_path, monkeypatch):
    """A run cache of the test's own."""
    monkeypatch.setenv("UCVGL_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def drawn_figures():
    """The notebooks' look; what a test leaves open is drawn, as layouts that do not fit only warn then, and closed."""
    import matplotlib.pyplot as plt

    from ucvgl.lab.plots import use_style

    use_style()
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
