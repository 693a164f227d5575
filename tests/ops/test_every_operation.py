"""What holds for every operation: each device, each floating type, each order in memory."""

import importlib
import inspect
import pkgutil
from contextlib import nullcontext

import numpy as np
import pytest
import strict_cupy
from gradcheck import check_gradients
from operation_cases import CASES

import tinycompress as tc
from tinycompress import ops
from tinycompress.backend import is_array, to_device, to_numpy
from tinycompress.ops.steps import Step
from tinycompress.tensor import apply

each_case = pytest.mark.parametrize("name", CASES)
each_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


WITHOUT_SUMS = [f"tinycompress.ops.{m}" for m in ("elementwise", "shape", "copies", "dropout")]


def prepared(x, dtype, where):
    """Arrays inside ``x``, floating ones as ``dtype``, on the device ``where``."""
    if type(x) is tuple and not any(isinstance(part, Step) for part in x):
        return tuple(prepared(part, dtype, where) for part in x)
    if not is_array(x):
        return x
    return to_device(x.astype(dtype) if x.dtype.kind == "f" else x, where)


def forward_and_backward(name, dtype, where="cpu", order="C"):
    """The output and the gradients of all floating inputs, as arrays of that device."""
    op, inputs, params = CASES[name]
    inputs = [np.asarray(x, order=order) if is_array(x) else x for x in inputs]
    inputs = [prepared(x, dtype, where) for x in inputs]
    params = {key: prepared(x, dtype, where) for key, x in params.items()}
    tensors = [
        tc.Tensor(x, requires_grad=x.dtype.kind == "f") if is_array(x) else x for x in inputs
    ]
    leaves = [t for t in tensors if isinstance(t, tc.Tensor) and t.requires_grad]
    with strict_cupy.no_sync(name) if _is_strict(where) else nullcontext():
        y = apply(op, *tensors, **params)
    g = np.random.default_rng(2).normal(size=y.shape).astype(y.dtype)
    g = to_device(g, y.device)
    with strict_cupy.no_sync(name) if _is_strict(where) else nullcontext():
        return y, leaves, tc.grad(y, leaves, g)


def _is_strict(where):
    return where != "cpu" and "strict_cupy" in str(type(to_device(np.ones(1), where)).__module__)


def test_no_operation_is_missing():
    found = {
        f"{module.name}.{name}"
        for module in pkgutil.iter_modules(ops.__path__)
        for name, function in vars(
            importlib.import_module(f"tinycompress.ops.{module.name}")
        ).items()
        if inspect.isfunction(function)
        and function.__module__ == f"tinycompress.ops.{module.name}"
        and function.__annotations__.get("return") == "Result"
    }
    covered = {f"{op.__module__.rpartition('.')[2]}.{op.__name__}" for op, _, _ in CASES.values()}
    assert found == covered


@each_case
@each_dtype
def test_output_and_gradients_have_the_type_of_the_input(name, dtype):
    y, leaves, gradients = forward_and_backward(name, dtype)
    assert y.dtype == (np.float32 if name == "astype" else dtype)
    for leaf, g in zip(leaves, gradients, strict=True):
        assert (g.dtype, g.shape, type(g)) == (dtype, leaf.shape, np.ndarray)


@each_case
def test_derivatives(name):
    if name in ("astype", "batch_norm"):  # rounds; its statistics are parameters (see test_norm)
        return
    op, inputs, params = CASES[name]
    floats = [x for x in inputs if is_array(x) and x.dtype.kind == "f"]

    def f(*tensors):
        rest = iter(tensors)
        arguments = [
            next(rest) if is_array(x) and x.dtype.kind == "f" else _wrapped(x) for x in inputs
        ]
        return apply(op, *arguments, **params)

    check_gradients(f, *floats)


def _wrapped(x):
    return tc.Tensor(x) if is_array(x) else x


@each_case
@each_dtype
def test_every_device_computes_the_same(name, dtype, device):
    if name == "to_device":  # waits, of course
        return
    expected, _, expected_gradients = forward_and_backward(name, dtype)
    y, leaves, gradients = forward_and_backward(name, dtype, device)
    assert {tc.Tensor(a).device for a in gradients} <= {t.device for t in leaves}
    # The stand-in differs from NumPy at most in the order of a sum; a GPU rounds as it likes.
    to_the_bit = _is_strict(device) and CASES[name][0].__module__ in WITHOUT_SUMS
    tolerance = 0 if to_the_bit else 16 * np.finfo(dtype).eps
    for a, b in zip([y.data, *gradients], [expected.data, *expected_gradients], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(to_numpy(a), b, rtol=tolerance, atol=tolerance)


@each_case
def test_the_order_in_memory_does_not_matter(name):
    expected, _, expected_gradients = forward_and_backward(name, np.float64)
    y, _, gradients = forward_and_backward(name, np.float64, order="F")
    for a, b in zip([y.data, *gradients], [expected.data, *expected_gradients], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@each_case
def test_single_precision_is_double_precision_rounded(name):
    expected, _, expected_gradients = forward_and_backward(name, np.float64)
    y, _, gradients = forward_and_backward(name, np.float32)
    for a, b in zip([y.data, *gradients], [expected.data, *expected_gradients], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@each_case
def test_computing_twice_gives_the_same_bits(name):
    first, again = (forward_and_backward(name, np.float32) for _ in range(2))
    for a, b in zip([first[0].data, *first[2]], [again[0].data, *again[2]], strict=True):
        np.testing.assert_array_equal(a, b)
