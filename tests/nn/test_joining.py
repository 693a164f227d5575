"""Layers of several inputs compute what the operators do, and can be saved."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from strategies import broadcast_pairs

import tinycompress as tc
from tinycompress import functional as F, nn


class Residual(nn.Module):
    """x + conv(x), beside x."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.add, self.concat = nn.Add(), nn.Concat()

    def forward(self, x):
        return self.concat(self.add(x, self.conv(x)), x)


@given(broadcast_pairs())
def test_add_is_the_operator(shapes):
    a, b = (tc.tensor(np.random.default_rng(i).normal(size=s)) for i, s in enumerate(shapes))
    np.testing.assert_array_equal(nn.Add()(a, b).data, (a + b).data)


@given(st.integers(1, 4), st.integers(-3, 2))
def test_concat_is_cat(count, axis):
    parts = [tc.tensor(np.full((2, 3, 4), float(i))) for i in range(count)]
    np.testing.assert_array_equal(nn.Concat(axis)(*parts).data, F.cat(parts, axis).data)


def test_their_derivatives():
    x = np.random.default_rng(0).normal(size=(2, 3, 2))
    check_gradients(lambda a, b: nn.Concat()(nn.Add()(a, b), b), x, x[:, :, ::-1].copy())


def test_a_model_with_both_runs_and_is_described(device):
    model = Residual().to(device)
    x = tc.tensor(np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype("f"), device=device)
    y = model(x)
    expected = np.concatenate([(x + model.conv(x)).numpy(), x.numpy()], axis=1)
    np.testing.assert_array_equal(y.numpy(), expected)
    rows = {row.name: row.output_shape for row in nn.summary(model, (2, 5, 5)).layers}
    assert rows == {"conv": (2, 5, 5), "add": (2, 5, 5), "concat": (4, 5, 5)}
    assert repr(model.concat) == "Concat(axis=1)"


def test_a_file_names_them(tmp_path):
    for layer in (nn.Add(), nn.Concat(axis=-1)):
        tc.save(layer, tmp_path / "layer.tcz")
        assert repr(tc.load(tmp_path / "layer.tcz")) == repr(layer)


def test_what_does_not_fit_is_refused():
    a, b = (tc.tensor(np.zeros((2, n), np.float32)) for n in (3, 4))
    with pytest.raises(ValueError, match="add: shapes"):
        nn.Add()(a, b)
    with pytest.raises(ValueError, match="sizes beside axis 0 differ"):
        nn.Concat(axis=0)(a, b)
    with pytest.raises(IndexError, match="axis 2 is out of range"):
        nn.Concat(axis=2)(a, a)
    with pytest.raises(ValueError, match="at least one tensor"):
        nn.Concat()()
    for axis in ("channels", 1.0, True):
        with pytest.raises(ValueError, match="Concat: axis must be a whole number"):
            nn.Concat(axis)
