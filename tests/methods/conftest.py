"""What the tests of the methods share."""

import pytest


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
