"""What the tests of the lab share."""

import pytest


@pytest.fixture
def studio(tmp_path, monkeypatch):
    """A folder with notebooks, runs and figures of its own, for this process and those it starts."""
    for name in ("notebooks", "runs", "figures"):
        monkeypatch.setenv(f"UCVGL_{name.upper()}", str(tmp_path / name))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.delenv("UCVGL_PROFILE", raising=False)
    (tmp_path / "notebooks").mkdir()
    return tmp_path
