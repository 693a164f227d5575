"""Nothing here leaves the machine: local mirrors, and folders of the test's own."""

import pytest
from mirror import Mirror


@pytest.fixture
def mirror():
    with Mirror() as running:
        yield running


@pytest.fixture
def other_mirror():
    with Mirror() as running:
        yield running


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("TINYCOMPRESS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))


@pytest.fixture
def sleeps(monkeypatch):
    """The pauses that were asked for, none of them taken."""
    taken = []
    monkeypatch.setattr("tinycompress.data.download.time.sleep", taken.append)
    return taken
