"""The recorded graph: the walk back, its depth and memory, the modes, and writing in place."""

import gc
import threading
import tracemalloc

import numpy as np
import pytest

import tinycompress as tc
from tinycompress import functional as F
from tinycompress.graph import is_grad_enabled
from tinycompress.tensor import apply


def leaf(*values, dtype=np.float32):
    return tc.tensor(np.array(values, dtype), requires_grad=True)


# --------------------------------------------------------------------------------- the chain rule


def test_gradients_accumulate_until_they_are_cleared():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    (x * 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [5, 7])
    x.grad = None
    (x * 3.0).sum().backward()
    np.testing.assert_array_equal(x.grad, [3, 3])


def test_every_path_to_a_leaf_counts():
    x = leaf(2.0)
    y = x * x
    z = y * y + y * x + x  # x⁴ + x³ + x
    z.backward()
    np.testing.assert_array_equal(x.grad, [4 * 8 + 3 * 4 + 1])


def test_a_graph_can_be_walked_twice():
    x = leaf(3.0)
    y = (x * x).sum()
    y.backward()
    y.backward()
    np.testing.assert_array_equal(x.grad, [12])


def test_a_diamond_of_depth_n_takes_n_steps_not_2_to_the_n():
    x = leaf(1.0)
    y = x
    for _ in range(200):
        y = (y + y) * 0.5
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1])


def test_a_leaf_is_its_own_derivative():
    x = leaf(5.0)
    x.backward()
    np.testing.assert_array_equal(x.grad, [1])
    np.testing.assert_array_equal(tc.grad(x, [x])[0], [1])


def test_only_what_requires_gradients_gets_them():
    x, constant = leaf(1.0), tc.tensor([2.0])
    (x * constant + np.array([3.0], np.float32)).sum().backward()
    assert constant.grad is None
    np.testing.assert_array_equal(x.grad, [2])


def test_a_given_gradient_weighs_the_outputs():
    x = leaf(1.0, 2.0)
    (x * x).backward(np.array([10.0, 100.0], np.float32))
    np.testing.assert_array_equal(x.grad, [20, 400])
    for gradient in ([1.0, 0.0], tc.tensor([1.0, 0.0])):
        np.testing.assert_array_equal(tc.grad(x * x, [x], gradient)[0], [2, 0])


def test_an_output_of_one_value_needs_no_gradient_whatever_its_shape():
    x = tc.tensor(np.full((1, 1, 1), 3.0), requires_grad=True)
    (x * x).backward()
    assert x.grad.tolist() == [[[6]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_have_the_type_of_their_data(dtype):
    x = leaf(1.0, 2.0, dtype=dtype)
    for seed in (np.float64(1), np.float32(1), 1.0, np.ones(())):
        y = (x * 2.0).sum()
        assert tc.grad(y, [x], seed)[0].dtype == dtype
    x.backward(np.ones(2, np.float64))
    assert x.grad.dtype == dtype


def test_a_vjp_that_promotes_is_brought_back():
    def op(x):
        return x * 2, (lambda g: g.astype(np.float64) * 2,)

    x = leaf(1.0)
    apply(op, x).backward()
    assert x.grad.dtype == np.float32


# ------------------------------------------------------------------------------------------ tc.grad


def test_grad_leaves_grad_alone():
    x, w = leaf(1.0), leaf(2.0)
    x.grad = kept = np.array([7.0], np.float32)
    d_x, d_w = tc.grad((x * w * w).sum(), [x, w])
    assert x.grad is kept
    assert w.grad is None
    np.testing.assert_array_equal([d_x, d_w], [[4], [4]])


def test_grad_is_zero_where_nothing_depends():
    x, other = leaf(1.0), leaf(1.0, 2.0, dtype=np.float64)
    d = tc.grad(x.sum(), [other, x])
    np.testing.assert_array_equal(d[0], [0, 0])
    assert d[0].dtype == np.float64
    np.testing.assert_array_equal(d[1], [1])


def test_grad_by_an_intermediate_result():
    x = leaf(3.0)
    y = x * x
    z = (y * y).sum()
    d_x, d_y, d_z = tc.grad(z, [x, y, z])
    assert (d_x.item(), d_y.item(), d_z.item()) == (4 * 27, 18, 1)


def test_grad_by_an_intermediate_counts_every_path_from_it():
    x = leaf(3.0)
    y = x * 1.0
    z = (y * x + y * y).sum()
    assert tc.grad(z, [y])[0].item() == 3 + 6


def test_grad_by_the_same_input_twice_gives_two_arrays():
    x = leaf(1.0)
    a, b = tc.grad((x * 2.0).sum(), [x, x])
    assert not np.shares_memory(a, b)
    np.testing.assert_array_equal(a, b)


def test_one_input_needs_no_list():
    x = leaf(1.0, 2.0)
    (d,) = tc.grad((x * x).sum(), x)
    np.testing.assert_array_equal(d, [2, 4])


# --------------------------------------------------------------------------------------- aliasing


ALIASING = {
    "sum of both": lambda a, b: a + b,
    "reshaped": lambda a, b: a.reshape(2, 2) + b.reshape(2, 2),
    "identity": lambda a, b: tc.cat([a, b]),
    "expanded": lambda a, b: (a + b).unsqueeze(0).expand(3, 4),
    "summed": lambda a, b: (a + b).sum(),
    "cloned": lambda a, b: a.clone() + b.clone(),
    "transposed": lambda a, b: a.reshape(2, 2).T + b.reshape(2, 2),
}


@pytest.mark.parametrize("f", ALIASING.values(), ids=ALIASING)
@pytest.mark.parametrize("how", ["backward", "grad"])
def test_gradients_share_memory_with_nothing(f, how):
    a, b = leaf(1, 2, 3, 4), leaf(5, 6, 7, 8)
    y = f(a, b)
    g = np.ones(y.shape, np.float32)
    if how == "backward":
        y.backward(g)
        gradients = [a.grad, b.grad]
    else:
        gradients = tc.grad(y, [a, b], g)
    everything = [g, a.data, b.data, y.data, *gradients]
    for i, d in enumerate(gradients):
        assert d.flags.writeable
        assert d.flags.owndata or d.base.flags.owndata
        others = [x for x in everything if x is not d]
        assert not any(np.shares_memory(d, x) for x in others), i


def test_accumulating_does_not_write_into_an_array_that_was_handed_out():
    x = leaf(1.0)
    (x * 2.0).backward()
    handed_out = x.grad
    (x * 2.0).backward()
    np.testing.assert_array_equal(handed_out, [2])
    np.testing.assert_array_equal(x.grad, [4])


def test_a_leaf_that_is_the_output_copies_the_users_gradient():
    x = leaf(1.0)
    g = np.ones(1, np.float32)
    x.backward(g)
    g[0] = 7
    np.testing.assert_array_equal(x.grad, [1])


# ------------------------------------------------------------------------------- depth and memory


@pytest.mark.parametrize("length", [5_000, 100_000])
def test_a_long_chain_needs_no_recursion(length):
    """Forward, backward and the destruction of the graph."""
    x, c = leaf(1.0, 2.0), tc.tensor([1.0, 1.0])
    y = x * c
    for _ in range(length):
        y = y.relu()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])
    del y
    gc.collect()
    c[0] = 5.0  # nothing depends on it any more


def network(x, labels, weights):
    w1, w2, w3 = weights
    h = F.max_pool2d(F.relu(F.conv2d(x, w1)), 2)
    h = F.dropout(F.relu(F.conv2d(h, w2)), 0.5)
    return F.cross_entropy(h.flatten(1) @ w3, labels)


def test_memory_does_not_grow_over_200_steps(rng):
    x, labels = rng.normal(size=(4, 1, 12, 12)).astype(np.float32), np.array([0, 1, 2, 1])
    shapes = (3, 1, 3, 3), (4, 3, 3, 3), (36, 3)
    weights = [tc.tensor(rng.normal(size=s).astype(np.float32), requires_grad=True) for s in shapes]

    def steps(n):
        for _ in range(n):
            loss = network(x, labels, weights)
            loss.backward()
            for w in weights:
                w.data -= 0.01 * w.grad
                w.grad = None

    def size():
        return tracemalloc.get_traced_memory()[0]

    gc.disable()  # memory must come back by counting references, without the collector
    tracemalloc.start()
    try:
        steps(20)
        objects, before = len(gc.get_objects()), size()
        steps(200)
        new_objects, growth = len(gc.get_objects()) - objects, size() - before
        before, kept = size(), network(x, labels, weights)
        of_one_step = size() - before
    finally:
        tracemalloc.stop()
        gc.enable()
    assert new_objects < 20
    # CPython keeps some hundred kilobytes of freed tuples; a leak would be 200 steps' arrays.
    assert growth < 20 * of_one_step
    assert kept.requires_grad


def test_intermediate_arrays_that_no_derivative_needs_are_freed():
    """``y = x + x + …`` keeps no summand: addition's derivative needs none."""
    x = tc.tensor(np.ones(100_000, np.float32), requires_grad=True)
    tracemalloc.start()
    try:
        y = x
        for _ in range(20):
            y = y + 1.0
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * x.data.nbytes
    assert y.requires_grad


# -------------------------------------------------------------------------------------------- modes


def test_no_grad_records_nothing():
    x = leaf(1.0)
    with tc.no_grad():
        y = x * 2.0
        assert not is_grad_enabled()
    assert is_grad_enabled()
    assert not y.requires_grad
    assert y.is_leaf
    assert (x * 2.0).requires_grad


def test_no_grad_as_a_decorator_and_nested():
    @tc.no_grad()
    def double(x, depth):
        with tc.no_grad():
            pass
        assert not is_grad_enabled()
        return double(x, depth - 1) if depth else x * 2.0

    assert not double(leaf(1.0), 3).requires_grad
    assert is_grad_enabled()


def test_no_grad_ends_when_an_exception_leaves_it():
    with pytest.raises(ZeroDivisionError), tc.no_grad():
        _ = 1 / 0
    assert is_grad_enabled()


def in_a_thread(f):
    result = []
    thread = threading.Thread(target=lambda: result.append(f()))
    thread.start()
    thread.join()
    return result[0]


def test_no_grad_is_of_one_thread():
    with tc.no_grad():
        assert in_a_thread(is_grad_enabled)
    with tc.detect_anomaly():
        assert in_a_thread(lambda: np.isinf(tc.tensor(0.0).log().item()))


def test_a_decorated_function_may_run_in_several_threads():
    """The second thread enters before the first leaves, and is in another mode of its own."""
    inside, may_leave = threading.Event(), threading.Event()

    @tc.no_grad()
    def evaluate(wait):
        if wait:
            inside.set()
            may_leave.wait(10)

    def first():
        evaluate(True)
        return is_grad_enabled()

    results = []
    thread = threading.Thread(target=lambda: results.append(first()))
    thread.start()
    inside.wait(10)
    with tc.no_grad():
        evaluate(False)
        may_leave.set()
        thread.join()
        assert not is_grad_enabled()
    assert results == [True]


def test_threads_differentiate_side_by_side(rng):
    w = tc.tensor(rng.normal(size=(8, 8)), requires_grad=True)
    inputs = rng.normal(size=(4, 8, 8))
    expected = [tc.grad((x @ w).tanh().sum(), [w])[0] for x in inputs]
    results = [None] * 4

    def work(k):
        for _ in range(20):
            results[k] = tc.grad((inputs[k] @ w).tanh().sum(), [w])[0]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r, e in zip(results, expected, strict=True):
        np.testing.assert_array_equal(r, e)
    assert w.grad is None


# ---------------------------------------------------------------------------------- detect_anomaly


def test_the_first_operation_that_is_not_finite_is_named():
    x = tc.tensor([[0.0, 1.0]], requires_grad=True)
    with tc.detect_anomaly():
        (x + 1.0).log()
        with pytest.raises(tc.AnomalyError, match=r"log: the forward pass .* infinity .*\(1, 2\)"):
            (x.log() * 0.0).sum()
        with pytest.raises(tc.AnomalyError, match=r"sqrt: the forward pass produced NaN"):
            (x - 1.0).sqrt().exp().sum()
    assert np.isnan((x.log() * 0.0).sum().item()), "without it, no error and no warning"


def test_the_first_gradient_that_is_not_finite_is_named():
    x = leaf(0.0, 1.0)
    y = (x.sqrt() * 2.0).sum()
    with (
        tc.detect_anomaly(),
        pytest.raises(tc.AnomalyError, match=r"sqrt: the backward .*infinity"),
    ):
        y.backward()
    assert x.grad is None, "no half-made gradients are left behind"


def test_an_anomaly_in_a_network_is_found_on_every_device(device):
    x = tc.tensor([[1.0, 2.0]], device=device)
    w = tc.tensor([[1e38, 1e38]], device=device, requires_grad=True)
    with tc.detect_anomaly(), pytest.raises(tc.AnomalyError, match="linear: the forward"):
        F.relu(F.linear(x * 10.0, w)).sum()


def test_integers_are_never_an_anomaly():
    with tc.detect_anomaly():
        assert (tc.tensor([1, 2]) + 1).sum().item() == 5


# ------------------------------------------------------------------------------- writing in place


def refused():
    return pytest.raises(RuntimeError, match=r"in-place assignment .*(tc\.where|clone)")


def test_a_parameter_is_written_under_no_grad_only():
    w = leaf(1.0, 2.0)
    with refused():
        w[0] = 5.0
    with tc.no_grad():
        w[0] = 5.0
    np.testing.assert_array_equal(w.data, [5, 2])


def test_a_recorded_result_is_never_written():
    y = leaf(1.0, 2.0) * 2.0
    with refused():
        y[0] = 5.0
    with refused(), tc.no_grad():
        y[0] = 5.0


def test_a_constant_is_free_again_when_its_graph_is_gone():
    x, c = leaf(1.0, 2.0), tc.tensor([3.0, 4.0])
    c[0] = 1.0
    y = (x * c).exp().sum()
    with refused():
        c[0] = 5.0
    with refused(), tc.no_grad():
        c[0] = 5.0
    assert c.data[0] == 1
    y.backward()
    del y
    c[0] = 5.0
    np.testing.assert_array_equal(c.data, [5, 4])


VIEWS = {
    "index": lambda t: t[1:],
    "reshape": lambda t: t.reshape(2, 1),
    "permute": lambda t: t.reshape(1, 2).T,
    "detach": lambda t: t.detach(),
    "view of a view": lambda t: t.detach().reshape(2, 1)[1:],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_is_as_guarded_as_what_it_views(view):
    x, c = leaf(1.0, 2.0), tc.tensor([3.0, 4.0])
    alias = view(c)
    y = x * c
    with refused():
        alias[0] = 5.0
    del y
    alias[0] = 5.0
    assert 5 in c.data
    z = leaf(1.0) * alias
    with refused():
        c[0] = 5.0
    del z


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_of_a_recorded_result_is_guarded_while_the_graph_lives(view):
    x = leaf(1.0, 2.0)
    y = x.exp()
    with tc.no_grad():
        alias = view(y)
    z = y.sum()
    with refused():
        alias[0] = 5.0
    del y
    with refused():
        alias[0] = 5.0
    z.backward()
    np.testing.assert_array_equal(x.grad, np.exp(np.array([1, 2], np.float32)))
    del z
    alias[0] = 5.0


def test_copies_are_free():
    x, c = leaf(1.0, 2.0), tc.tensor([3.0, 4.0])
    y = x * c
    for copy in (c.clone(), c[[0, 1]], c + 0.0, y.detach().clone()):
        copy[0] = 5.0
    np.testing.assert_array_equal(c.data, [3, 4])


def test_guarding_a_constant_costs_the_same_however_often_it_is_used():
    """Each use of a constant is one entry in a set, not a walk over all earlier ones."""
    x, c = leaf(1.0), tc.tensor([1.0])
    results = [x * c for _ in range(3)]
    assert len(c.users()) == 3
    del results
    assert len(c.users()) == 0


def test_what_requires_gradients_is_not_assigned_in_silence():
    buffer = tc.tensor([0.0, 0.0])
    with pytest.raises(RuntimeError, match=r"would lose them.*tc\.stack.*detach"):
        buffer[0] = leaf(1.0).sum()
    buffer[0] = leaf(1.0).sum().detach()
    with tc.no_grad():
        buffer[1] = leaf(2.0).sum()
    np.testing.assert_array_equal(buffer.data, [1, 2])


def test_an_expanded_tensor_is_not_written():
    x = tc.tensor([1.0]).expand(3)
    with pytest.raises(RuntimeError, match=r"expanded.*clone"):
        x[0] = 5.0


def test_assignment_on_every_device(device):
    x = tc.tensor(np.zeros((2, 3)), device=device)
    x[0] = 1.0
    x[1, :2] = tc.tensor([2.0, 3.0], dtype=tc.float64, device=device)
    x[:, 2] = [8.0, 9.0]
    x[tc.tensor([0], device=device), 0] = 7.0
    np.testing.assert_array_equal(x.numpy(), [[7, 1, 8], [2, 3, 9]])


# --------------------------------------------------------------------------- gradients together


def both(a, b):
    """``ab``, with one function for both gradients."""
    asked = []

    def backward(g, wanted):
        asked.append(wanted)
        return g * b if wanted[0] else None, g * a if wanted[1] else None

    both.asked = asked
    return a * b, backward


def test_an_operation_may_give_all_its_gradients_together():
    a, b = leaf(2.0), leaf(3.0)
    (apply(both, a, b) * 10.0).sum().backward()
    assert (a.grad.item(), b.grad.item()) == (30, 20)
    assert both.asked == [(True, True)]


def test_it_is_told_which_gradients_are_wanted():
    b = leaf(3.0)
    apply(both, tc.tensor([2.0]), b).sum().backward()
    assert b.grad.item() == 2
    assert both.asked == [(False, True)]


def test_gradients_that_come_together_are_brought_to_shape_and_type():
    def op(a, b):
        return a * b, lambda g, wanted: (g * b, (g * a).astype(np.float64))

    a, b = leaf(1.0, 2.0), leaf(3.0)
    apply(op, a, b).sum().backward()
    assert (b.grad.tolist(), b.grad.dtype) == ([3], np.float32)


def test_one_array_for_two_inputs_is_added_to_without_harm():
    """The gradients of x + y share memory; what x gets from elsewhere must not reach y."""
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x * 5.0 + (x + y)).sum().backward()
    assert (x.grad.tolist(), y.grad.tolist()) == ([6, 6], [1, 1])
