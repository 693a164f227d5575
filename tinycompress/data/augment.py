"""Augmentation: whole batches, shifted, turned and scaled at random.

An affine map takes each output pixel p to the place q in the input that it shows::

    q = c + A⁻¹ (p − c − t),    A = scale · [[cos θ, −sin θ], [sin θ, cos θ]]

with c the centre of the image and t a shift. Between pixels the image is bilinear; outside it is 0.
Written with the output asking for its input, the map is a *gather*: one vectorized indexing for a
batch, the same on a GPU, where scattering would be neither exact nor repeatable.

The gather reads from a copy with a border of zeros, and places far outside are moved onto that
border, so that no case distinction is left.

A digit stays the digit it is under such small maps: P. Simard, D. Steinkraus, J. Platt, "Best
practices for convolutional neural networks applied to visual document analysis", ICDAR 2003.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tinycompress.backend import Array, array_module, device_of, on_device, to_device


@dataclass(frozen=True)
class RandomShift:
    """Shift each image by whole pixels, the same chance for each shift; what leaves is lost.

    Args:
        pixels: the largest shift in each direction, in pixels: dy and dx are −pixels … pixels.
    """

    pixels: int = 2

    def __post_init__(self) -> None:
        if self.pixels < 0 or self.pixels != int(self.pixels):
            raise ValueError(f"pixels must be an integer ≥ 0, got {self.pixels}")

    def __call__(self, images: Array, generator: np.random.Generator) -> Array:
        """(N, C, H, W) -> (N, C, H, W), with shifts drawn from ``generator``."""
        shifts = generator.integers(-self.pixels, self.pixels + 1, (len(images), 2))
        return shift_images(images, shifts)


@dataclass(frozen=True)
class RandomAffine:
    """Turn, scale and shift each image by random amounts, as one bilinear resampling.

    Args:
        degrees: the largest turn in either direction, in degrees.
        translate: the largest shift in each direction, in pixels (any real number).
        scale: the smallest and the largest factor of size.
    """

    degrees: float = 10.0
    translate: float = 2.0
    scale: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        if not 0 <= self.degrees < math.inf or not 0 <= self.translate < math.inf:
            raise ValueError(
                f"degrees and translate must be ≥ 0, got {self.degrees} and {self.translate}"
            )
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise ValueError(f"scale must be (smallest, largest), both > 0, got {self.scale}")

    def __call__(self, images: Array, generator: np.random.Generator) -> Array:
        """(N, C, H, W) -> (N, C, H, W), with angles, scales and shifts drawn from ``generator``."""
        n = len(images)
        angles = np.deg2rad(generator.uniform(-self.degrees, self.degrees, n))
        scales = generator.uniform(*self.scale, n)
        shifts = generator.uniform(-self.translate, self.translate, (n, 2))
        return affine_images(images, angles, scales, shifts)


# ------------------------------------------------------------------------------ the maps themselves


def shift_images(images: Array, shifts: np.ndarray) -> Array:
    """Image i moved down by ``shifts[i, 0]`` and right by ``shifts[i, 1]`` whole pixels, exactly.

    Args:
        images: (N, C, H, W).
        shifts: (N, 2) integers, on the host.
    """
    _check_images(images)
    xp = array_module(images)
    h, w = images.shape[2:]
    shifts = to_device(shifts, device_of(images))
    with on_device(images):
        rows = xp.clip(xp.arange(h) - shifts[:, :1], -1, h)  # (N, H), -1 and H: on the border
        columns = xp.clip(xp.arange(w) - shifts[:, 1:], -1, w)  # (N, W)
        source, index = _bordered(images, rows[:, :, None], columns[:, None, :])
        return source.take(index)


def affine_images(
    images: Array, angles: np.ndarray, scales: np.ndarray, shifts: np.ndarray
) -> Array:
    """Image i turned by ``angles[i]`` and scaled by ``scales[i]`` about its centre, then shifted.

    A turn by 0, a scale of 1 and a shift of 0 give back the same values exactly.

    Args:
        images: (N, C, H, W) floating point.
        angles: (N,) radians, positive counter-clockwise, on the host as the next two.
        scales: (N,) factors of size.
        shifts: (N, 2) pixels down and right.
    """
    _check_images(images)
    xp = array_module(images)
    h, w = images.shape[2:]
    with on_device(images):
        y, x = _source_places(images, angles, scales, shifts)  # (N, H, W) each
        y, x = xp.clip(y, -1, h), xp.clip(x, -1, w)
        y0, x0 = xp.floor(y), xp.floor(x)
        fy, fx = (y - y0)[:, None], (x - x0)[:, None]  # (N, 1, H, W)
        source, index = _bordered(images, y0.astype(np.int64), x0.astype(np.int64))
        down = w + BORDER  # the four neighbours of a place: one index into a shifted source
        v00, v01, v10, v11 = (source[k:].take(index) for k in (0, 1, down, down + 1))
        top, bottom = v00 + fx * (v01 - v00), v10 + fx * (v11 - v10)
        return (top + fy * (bottom - top)).astype(images.dtype, copy=False)


BORDER = 3  # zeros around an image: one before, two behind (a neighbour of the border is read too)


def _bordered(images: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """The images with their border, flat, and the index in it of each (row, column).

    ``rows`` and ``columns`` broadcast to (N, H, W), run from −1 to H and W, and hold for every
    channel of their image. The index is (N, C, H, W).
    """
    xp = array_module(images)
    n, c, h, w = images.shape
    source = xp.zeros((n, c, h + BORDER, w + BORDER), images.dtype)
    source[:, :, 1 : h + 1, 1 : w + 1] = images
    places = (rows + 1) * (w + BORDER) + (columns + 1)  # (N, H, W)
    first = xp.arange(n * c).reshape(n, c, 1, 1) * ((h + BORDER) * (w + BORDER))
    return source.ravel(), first + places[:, None]


def _source_places(
    images: Array, angles: np.ndarray, scales: np.ndarray, shifts: np.ndarray
) -> tuple[Array, Array]:
    """The row and the column in the input that each output pixel shows: two of (N, H, W)."""
    xp = array_module(images)
    h, w = images.shape[2:]
    cy, cx = (h - 1) / 2, (w - 1) / 2
    cosine, sine = np.cos(angles) / scales, np.sin(angles) / scales
    dy, dx = cy + shifts[:, 0], cx + shifts[:, 1]  # the place to which the centre goes
    table = np.stack(  # A⁻¹ and the constant part of q, by image: (6, N)
        [cosine, sine, cy - cosine * dy - sine * dx, -sine, cosine, cx + sine * dy - cosine * dx]
    )
    dtype = np.promote_types(images.dtype, np.float32)  # float16 cannot tell places apart
    a, b, oy, d, e, ox = to_device(table.astype(dtype), device_of(images))[:, :, None, None]
    row, column = xp.arange(h, dtype=dtype)[:, None], xp.arange(w, dtype=dtype)
    return a * row + b * column + oy, d * row + e * column + ox


def _check_images(images: Array) -> None:
    if images.ndim != 4 or images.dtype.kind != "f":
        raise ValueError(
            "augmentation needs floating-point images of shape (N, C, H, W), got "
            f"{images.dtype} of shape {tuple(images.shape)}"
        )
