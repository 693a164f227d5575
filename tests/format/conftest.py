"""Fixtures of the format's tests; ``tcz_samples.py`` has the models."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tcz_samples, whatever pytest's import mode is

from tcz_samples import SAMPLES, assert_same_model

from tinycompress.format import registry


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is forgotten after it, and what other tests registered before it."""
    known = registry._registered.items()
    own = {name: made for name, made in known if made.__module__.startswith("tinycompress")}
    monkeypatch.setattr(registry, "_registered", own)


@pytest.fixture(params=SAMPLES)
def sample(request):
    """Each of the small models in turn."""
    return SAMPLES[request.param]()


@pytest.fixture
def same_model():
    return assert_same_model
