"""What all compression asks of a model, and how errors call its layers."""

from __future__ import annotations

from typing import Any

from tinycompress import nn


def check_model(verb: str, model: Any) -> None:
    """Refuse what is no model."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{verb} takes a model, got {type(model).__name__}")


def label_of(name: str, layer: nn.Module) -> str:
    """How errors call a layer."""
    return f"{name or 'the model'} ({type(layer).__name__})"
