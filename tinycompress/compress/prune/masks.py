"""Masks: a boolean array on a weight, True where it is kept.

Optimizers multiply the weight and its momentum by the mask after every step, so a pruned weight
stays 0 however long training goes on (``optim/optimizer.py``); masking gradients alone would let
momentum and weight decay move it. A mask saves neither memory nor time; the file format
makes use of zeros, and ``removal.py`` of channels that are zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tinycompress import nn
from tinycompress.backend import Array, copy_of, device_of, is_array, on_device, to_device
from tinycompress.compress.prune.layers import check_names, prunable_weights


def apply_masks(model: nn.Module, masks: Mapping[str, Array]) -> None:
    """Put a mask on the weight of each named layer, in place, and zero what it prunes.

    Args:
        model: changed in place.
        masks: name → boolean array of the weight's shape, True where it is kept, on any device. The
            name is a layer's, and means its weight, or a parameter's, such as a bias.

    Raises:
        ValueError: an unknown name or another shape or dtype; nothing is changed.
    """
    weights = parameters_of(model, masks)
    for name, mask in masks.items():
        if not is_array(mask):
            raise ValueError(
                f"the mask of layer {name!r} must be bool{weights[name].shape}, "
                f"got {type(mask).__name__}"
            )
        if mask.shape != weights[name].shape or mask.dtype != bool:
            raise ValueError(
                f"the mask of layer {name!r} must be bool{weights[name].shape}, "
                f"got {mask.dtype}{mask.shape}"
            )
    for name, mask in masks.items():
        p = weights[name]
        p.mask = copy_of(to_device(mask, device_of(p.data)))
        with on_device(p.data):
            p.data[~p.mask] = 0


def parameters_of(model: nn.Module, masks: Collection[str]) -> dict[str, nn.Parameter]:
    """What these masks are for: a parameter by its own name, or the weight of a layer by its name.

    Raises:
        ValueError: a name that is neither.
    """
    weights = prunable_weights(model)
    parameters = {name: p for name, p in model.named_parameters() if name in masks}
    check_names("masks", [name for name in masks if name not in parameters], weights)
    return weights | parameters


def strip(model: nn.Module) -> nn.Module:
    """A copy of ``model`` without masks: the zeros stay, but further training may move them."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"strip takes a model, got {type(model).__name__}")
    bare = model.copy()
    for p in bare.parameters():
        if p.mask is not None:
            with on_device(p.data):
                p.data[~p.mask] = 0  # training leaves −0, which a file would have to keep
            p.mask = None
    return bare
