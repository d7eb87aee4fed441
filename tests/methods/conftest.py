"""What the tests of the methods share."""

import pytest


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run cache of the module's own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("UCVGL_RUNS", str(tmp_path_factory.mktemp("runs")))
    yield
    patch.undo()
