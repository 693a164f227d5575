"""Losses on logits and on features: against slow references, torch, and finite differences."""

import numpy as np
import pytest
from gradcheck import check_gradients
from hypothesis import given, strategies as st
from scipy.special import log_softmax, softmax

import tinycompress as tc
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.distill import (
    attention_transfer_loss,
    decoupled_loss,
    distillation_loss,
    hint_loss,
    label_loss,
    logit_matching_loss,
    relational_angle_loss,
    relational_distance_loss,
    soft_target_loss,
)
from tinycompress.tensor import Tensor

seeds = st.integers(0, 10_000)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(0, 1.5, shape)


# --------------------------------------------------------------------------- slow references


def matching(z_s, z_t):
    return 0.5 * ((z_s - z_t) ** 2).sum(axis=1).mean()


def decoupled(z_s, z_t, y, T, alpha, beta):
    total = 0.0
    for s, t, label in zip(z_s / T, z_t / T, y, strict=True):
        p, q = softmax(t), softmax(s)
        b_p, b_q = (np.array([r[label], 1 - r[label]]) for r in (p, q))
        others = [softmax(np.delete(z, label)) for z in (t, s)]
        total += alpha * kl(b_p, b_q) + beta * kl(*others)
    return T**2 * total / len(y)


def kl(p, q):
    return (p * np.log(p / q)).sum()


def hint(f_s, f_t):
    return sum(0.5 * ((a - b) ** 2).sum() for a, b in zip(f_s, f_t, strict=True)) / len(f_s)


def attention(a_s, a_t):
    total = 0.0
    for s, t in zip(a_s, a_t, strict=True):
        q_s, q_t = ((a**2).sum(axis=0).ravel() for a in (s, t))
        total += ((q_s / np.linalg.norm(q_s) - q_t / np.linalg.norm(q_t)) ** 2).sum() / 2
    return total / len(a_s)


def huber(r):
    return r * r / 2 if abs(r) <= 1 else abs(r) - 0.5


def distances(f_s, f_t):
    n = len(f_s)
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    psi = []
    for f in (f_s, f_t):
        d = np.array([np.linalg.norm(f[i] - f[j]) for i, j in pairs])
        psi.append(d / d.mean())
    return np.mean([huber(a - b) for a, b in zip(*psi, strict=True)])


def angles(f_s, f_t):
    n = len(f_s)
    triples = [
        (i, j, k) for i in range(n) for j in range(n) for k in range(n) if len({i, j, k}) == 3
    ]
    found = []
    for i, j, k in triples:
        cosines = []
        for f in (f_s, f_t):
            a, b = f[i] - f[j], f[k] - f[j]
            lengths = np.linalg.norm(a) * np.linalg.norm(b)
            cosines.append(a @ b / lengths if lengths else 0.0)
        found.append(huber(cosines[0] - cosines[1]))
    return np.mean(found)


CASES = {
    "matching": (logit_matching_loss, matching, (5, 4), (5, 4)),
    "hint": (hint_loss, hint, (3, 2, 3, 2), (3, 2, 3, 2)),
    "attention": (attention_transfer_loss, attention, (3, 2, 3, 4), (3, 5, 3, 4)),
    "distances": (relational_distance_loss, distances, (5, 3), (5, 7)),
    "angles": (relational_angle_loss, angles, (5, 3), (5, 2, 4)),
}
each_case = pytest.mark.parametrize("case", CASES)


def flat_where_flattened(case, array):
    return array.reshape(len(array), -1) if case in ("distances", "angles") else array


@each_case
@given(seed=seeds)
def test_it_is_its_definition(case, seed):
    loss, reference, student, teacher = CASES[case]
    f_s, f_t = normal(seed, *student), normal(seed + 1, *teacher)
    expected = reference(*(flat_where_flattened(case, f) for f in (f_s, f_t)))
    assert loss(f_s, f_t).item() == pytest.approx(expected, rel=1e-9)


@each_case
def test_its_derivative_is_that_of_finite_differences(case):
    loss, _, student, teacher = CASES[case]
    f_t = normal(1, *teacher)
    check_gradients(lambda f_s: loss(f_s, f_t), normal(0, *student))


@each_case
def test_it_is_zero_where_the_two_are_the_same_and_then_moves_nothing(case):
    loss, _, student, _ = CASES[case]
    leaf = Tensor(normal(0, *student), requires_grad=True)
    value = loss(leaf, leaf.data.copy())
    value.backward()
    assert value.item() == 0
    np.testing.assert_array_equal(leaf.grad, 0)


@each_case
def test_the_teacher_gets_no_derivative(case):
    loss, _, student, teacher = CASES[case]
    f_t = Tensor(normal(1, *teacher), requires_grad=True)
    loss(Tensor(normal(0, *student), requires_grad=True), f_t * 1.0).backward()
    assert f_t.grad is None


@pytest.mark.parametrize("case", ["matching", "hint", "attention"])
def test_twice_the_same_batch_has_the_same_loss(case):
    """Sums belong to a sample, the mean to the batch."""
    loss, _, student, teacher = CASES[case]
    f_s, f_t = normal(0, *student), normal(1, *teacher)
    once = loss(f_s, f_t).item()
    assert loss(np.r_[f_s, f_s], np.r_[f_t, f_t]).item() == pytest.approx(once, rel=1e-12)


@each_case
def test_it_runs_in_float32_on_every_device(case, device):
    loss, reference, student, teacher = CASES[case]
    f_s, f_t = (normal(k, *shape).astype(np.float32) for k, shape in enumerate((student, teacher)))
    leaf = Tensor(to_device(f_s, device), requires_grad=True)
    value = loss(leaf, to_device(f_t, device))
    value.backward()
    assert value.dtype == leaf.grad.dtype == np.float32
    expected = reference(*(flat_where_flattened(case, f) for f in (f_s, f_t)))
    assert value.item() == pytest.approx(expected, rel=1e-4)
    on_host = Tensor(f_s, requires_grad=True)
    loss(on_host, f_t).backward()
    np.testing.assert_allclose(to_numpy(leaf.grad), on_host.grad, atol=1e-6)


@each_case
@pytest.mark.torch
def test_value_and_derivative_equal_those_of_torch(case):
    torch = pytest.importorskip("torch")
    loss, _, student, teacher = CASES[case]
    f_s, f_t = normal(0, *student), normal(1, *teacher)
    leaf = torch.tensor(f_s, requires_grad=True)
    expected = in_torch(torch, case, leaf, torch.tensor(f_t))
    expected.backward()
    ours = Tensor(f_s, requires_grad=True)
    value = loss(ours, f_t)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    np.testing.assert_allclose(ours.grad, leaf.grad.numpy(), atol=1e-12)


def in_torch(torch, case, f_s, f_t):
    """The authors' own code, with this project's reduction."""
    G, N = torch.nn.functional, len(f_s)
    if case in ("matching", "hint"):
        return 0.5 * G.mse_loss(f_s, f_t, reduction="sum") / N
    if case == "attention":
        q_s, q_t = (G.normalize(f.pow(2).sum(1).view(N, -1)) for f in (f_s, f_t))
        return 0.5 * (q_s - q_t).pow(2).sum() / N
    f_s, f_t = f_s.flatten(1), f_t.flatten(1)
    off = ~torch.eye(N, dtype=bool)
    if case == "distances":
        d_s, d_t = ((f[:, None] - f[None])[off].norm(dim=1) for f in (f_s, f_t))
        return G.smooth_l1_loss(d_s / d_s.mean(), d_t / d_t.mean())
    cosines = []
    for f in (f_s, f_t):
        e = G.normalize(f[:, None] - f[None], p=2, dim=2)
        cosines.append(torch.bmm(e.transpose(0, 1), e.transpose(0, 1).transpose(1, 2)))
    distinct = off[:, :, None] & off[:, None, :] & off[None, :, :]
    return G.smooth_l1_loss(cosines[0][distinct], cosines[1][distinct])


# ---------------------------------------------------------------------------------- matching


def test_softened_probabilities_at_a_large_temperature_are_matched_logits():
    """T² KL → ½ Σ (z_s − z_t)² / K, for logits whose mean is 0 in each sample."""
    z_s, z_t = (z - z.mean(axis=1, keepdims=True) for z in (normal(0, 6, 5), normal(1, 6, 5)))
    limit = logit_matching_loss(z_s, z_t).item() / 5
    errors = [abs(soft_target_loss(z_s, z_t, T).item() - limit) for T in (10, 100, 1000)]
    assert errors[2] < errors[1] / 5 < errors[0] / 25
    assert errors[2] < 1e-2 * limit


def test_logits_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"must both be \(N, classes\)"):
        logit_matching_loss(normal(0, 3, 4), normal(0, 3, 5))


# --------------------------------------------------------------------------------- decoupled


def labels(seed, n, classes):
    return np.random.default_rng(seed).integers(0, classes, n)


@given(seeds, st.integers(1, 5), st.integers(2, 6), st.floats(0.5, 10))
def test_decoupled_is_its_definition(seed, n, classes, T):
    z_s, z_t, y = normal(seed, n, classes), normal(seed + 1, n, classes), labels(seed, n, classes)
    found = decoupled_loss(z_s, z_t, y, T, 0.7, 3.0).item()
    assert found == pytest.approx(decoupled(z_s, z_t, y, T, 0.7, 3.0), rel=1e-8, abs=1e-12)


@given(seeds, st.floats(0.5, 10))
def test_put_together_again_the_two_parts_are_the_divergence(seed, T):
    """For one sample: KL = first part + (1 − p_y) · second part."""
    z_s, z_t, y = normal(seed, 1, 5), normal(seed + 1, 1, 5), labels(seed, 1, 5)
    rest = 1 - softmax(z_t / T, axis=1)[0, y[0]]
    whole = decoupled_loss(z_s, z_t, y, T, 1.0, rest).item()
    assert whole == pytest.approx(soft_target_loss(z_s, z_t, T).item(), rel=1e-7, abs=1e-12)


def test_decoupled_has_the_derivative_of_finite_differences():
    z_t, y = normal(1, 4, 5), labels(0, 4, 5)
    check_gradients(lambda z_s: decoupled_loss(z_s, z_t, y, 2.0, 1.0, 3.0), normal(0, 4, 5))


def test_decoupled_is_zero_at_equal_logits_and_blind_to_constants():
    z_s, z_t, y = normal(0, 4, 5), normal(1, 4, 5), labels(0, 4, 5)
    assert decoupled_loss(z_t, z_t, y).item() == 0
    shifted = decoupled_loss(z_s + 7, z_t - 3, y).item()
    assert shifted == pytest.approx(decoupled_loss(z_s, z_t, y).item(), rel=1e-9)


def test_decoupled_stays_finite_where_the_teacher_is_certain():
    z_t = np.array([[60.0, 0.0, 1.0]], np.float32)
    leaf = Tensor(np.array([[0.0, 50.0, -50.0]], np.float32), requires_grad=True)
    loss = decoupled_loss(leaf, z_t, np.array([0]), 1.0)
    loss.backward()
    assert np.isfinite(loss.item())
    assert np.isfinite(leaf.grad).all()


@pytest.mark.parametrize("sure", [30.0, 300.0])
def test_what_the_other_classes_are_worth_does_not_depend_on_how_sure_anybody_is(sure):
    z_s, z_t, y = normal(0, 4, 5), normal(1, 4, 5), labels(0, 4, 5)
    expected = decoupled_loss(z_s, z_t, y, 2.0, 0.0, 1.0).item()
    for z in (z_s, z_t):
        z[np.arange(4), y] += sure
        found = decoupled_loss(z_s, z_t, y, 2.0, 0.0, 1.0).item()
        assert found == pytest.approx(expected, rel=1e-6)


def test_decoupled_runs_on_every_device(device):
    z_s, z_t, y = (normal(0, 4, 5).astype(np.float32), normal(1, 4, 5).astype(np.float32),
                   labels(0, 4, 5))  # fmt: skip
    found = decoupled_loss(*(to_device(a, device) for a in (z_s, z_t, y))).item()
    assert found == pytest.approx(decoupled(z_s, z_t, y, 4.0, 1.0, 8.0), rel=1e-4)


def test_decoupled_refuses_what_it_cannot_split():
    z, y = normal(0, 3, 4), labels(0, 3, 4)
    with pytest.raises(ValueError, match="every sample needs a label"):
        decoupled_loss(z, z, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="every sample needs a label"):
        decoupled_loss(z, z, None)
    with pytest.raises(ValueError, match="two classes"):
        decoupled_loss(z[:, :1], z[:, :1], y * 0)
    with pytest.raises(ValueError, match="beta must be a finite number"):
        decoupled_loss(z, z, y, beta=-1)


# -------------------------------------------------------------------------- hints, attention


def test_features_of_other_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="an adapter makes them so"):
        hint_loss(normal(0, 3, 4), normal(0, 3, 5))
    with pytest.raises(ValueError, match=r"must give out \(N, C, H, W\)"):
        attention_transfer_loss(normal(0, 3, 4), normal(0, 3, 4))
    with pytest.raises(ValueError, match="neither is the smaller"):
        attention_transfer_loss(normal(0, 3, 1, 4, 2), normal(0, 3, 1, 2, 4))
    for loss in (relational_distance_loss, relational_angle_loss):
        with pytest.raises(ValueError, match="of the same N samples"):
            loss(normal(0, 3, 4), normal(0, 2, 4))


def test_a_larger_map_is_averaged_to_the_size_of_the_smaller_one():
    small, large = normal(0, 2, 3, 2, 2), normal(1, 2, 4, 4, 4)
    mean = (large**2).sum(axis=1, keepdims=True).reshape(2, 1, 2, 2, 2, 2).mean(axis=(3, 5))
    expected = attention_transfer_loss(small, np.sqrt(mean)).item()
    assert attention_transfer_loss(small, large).item() == pytest.approx(expected, rel=1e-9)


def test_where_nothing_is_active_attention_is_finite():
    leaf = Tensor(np.zeros((2, 3, 2, 2), np.float32), requires_grad=True)
    loss = attention_transfer_loss(leaf, normal(0, 2, 3, 2, 2).astype(np.float32))
    loss.backward()
    assert loss.item() == pytest.approx(0.5, rel=1e-5)
    np.testing.assert_array_equal(leaf.grad, 0)


def test_attention_does_not_see_how_strong_the_activations_are():
    a_s, a_t = normal(0, 2, 3, 2, 2), normal(1, 2, 4, 2, 2)
    plain = attention_transfer_loss(a_s, a_t).item()
    assert attention_transfer_loss(9 * a_s, 0.1 * a_t).item() == pytest.approx(plain, rel=1e-6)


# --------------------------------------------------------------------------------- relations


@pytest.mark.parametrize("loss", [relational_distance_loss, relational_angle_loss])
def test_relations_do_not_see_where_the_cloud_lies_how_it_is_turned_or_how_large_it_is(loss):
    f_s, f_t = normal(0, 6, 3), normal(1, 6, 3)
    turn, _ = np.linalg.qr(normal(2, 3, 3))
    assert loss(5 * f_t @ turn + 100, f_t).item() < 1e-12
    plain = loss(f_s, f_t).item()
    assert plain > 0.01
    assert loss(f_s @ turn - 7, 3 * f_t).item() == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("loss", [relational_distance_loss, relational_angle_loss])
@pytest.mark.parametrize("f_s", [np.ones((4, 3)), np.eye(3)[[0, 0, 1, 2]], np.ones((1, 3))])
def test_samples_in_one_place_have_a_finite_loss_and_derivative(loss, f_s):
    leaf = Tensor(f_s.astype(np.float32), requires_grad=True)
    value = loss(leaf, normal(0, len(f_s), 2).astype(np.float32))
    value.backward()
    assert np.isfinite(value.item())
    assert np.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    ("loss", "reference"), [(relational_distance_loss, distances), (relational_angle_loss, angles)]
)
def test_two_samples_in_one_place_have_no_distance_and_no_direction(loss, reference):
    """And in the teacher, too: a triple in which one sample comes twice is none."""
    f_s, f_t = normal(0, 5, 3), normal(1, 5, 4)
    f_t[3] = f_t[1]
    assert loss(f_s, f_t).item() == pytest.approx(reference(f_s, f_t), rel=1e-9)
    f_s[0] = f_s[4]
    assert loss(f_s, f_t).item() == pytest.approx(reference(f_s, f_t), rel=1e-9)


@pytest.mark.parametrize(
    ("loss", "reference"), [(relational_distance_loss, distances), (relational_angle_loss, angles)]
)
def test_samples_count_as_one_place_below_a_thousandth_of_the_usual_distance(loss, reference):
    f_s, f_t = normal(0, 5, 3), normal(1, 5, 3)
    for apart, same in ((1e-2, False), (1e-5, True)):
        near = f_s.copy()
        near[1] = near[0] + apart
        found = loss(near, f_t).item()
        if same:
            near[1] = near[0]
        assert found == pytest.approx(reference(near, f_t), rel=1e-6 if not same else 1e-3)
        leaf = Tensor(near, requires_grad=True)
        loss(leaf, f_t).backward()
        assert np.isfinite(leaf.grad).all()


@pytest.mark.parametrize(
    ("loss", "reference"), [(relational_distance_loss, distances), (relational_angle_loss, angles)]
)
def test_far_from_the_origin_float32_still_tells_samples_apart(loss, reference):
    f_s, f_t = normal(0, 6, 3), normal(1, 6, 4)
    far = (f_s + 1000).astype(np.float32)
    expected = reference(far.astype(np.float64), f_t)
    assert loss(far, f_t.astype(np.float32)).item() == pytest.approx(expected, rel=1e-3)


# ------------------------------------------------------------------------------ missing labels


def targets_of(y, classes, known):
    return np.eye(classes, dtype=np.float32)[y] * known[:, None]


def test_targets_of_known_labels_are_the_labels():
    z_s, z_t, y = normal(0, 6, 4), normal(1, 6, 4), labels(0, 6, 4)
    full = targets_of(y, 4, np.ones(6))
    assert label_loss(z_s, full).item() == pytest.approx(label_loss(z_s, y).item(), rel=1e-12)
    expected = distillation_loss(z_s, z_t, y, 3.0, 0.4).item()
    assert distillation_loss(z_s, z_t, full, 3.0, 0.4).item() == pytest.approx(expected, rel=1e-9)


@given(seeds, st.floats(0.5, 10), st.floats(0, 1))
def test_where_a_label_is_missing_alpha_is_one(seed, T, alpha):
    z_s, z_t, y = normal(seed, 6, 4), normal(seed + 1, 6, 4), labels(seed, 6, 4)
    known = np.random.default_rng(seed).random(6) < 0.5
    each = []
    for i in range(6):
        p = softmax(z_t[i] / T)
        soft = T**2 * (p * (log_softmax(z_t[i] / T) - log_softmax(z_s[i] / T))).sum()
        hard = -log_softmax(z_s[i])[y[i]]
        each.append(alpha * soft + (1 - alpha) * hard if known[i] else soft)
    found = distillation_loss(z_s, z_t, targets_of(y, 4, known), T, alpha).item()
    assert found == pytest.approx(np.mean(each), rel=1e-6, abs=1e-9)


def test_with_missing_labels_the_derivative_is_right_too():
    z_t, y = normal(1, 4, 5), labels(0, 4, 5)
    targets = targets_of(y, 5, np.array([1, 0, 1, 0]))
    check_gradients(lambda z_s: distillation_loss(z_s, z_t, targets, 2.0, 0.3), normal(0, 4, 5))


def test_labels_of_another_kind_are_refused():
    z = normal(0, 3, 4)
    with pytest.raises(ValueError, match="class numbers"):
        label_loss(z, np.ones(3))
    with pytest.raises(ValueError, match=r"like the logits, \(3, 4\)"):
        label_loss(z, np.ones((3, 5)))


def test_missing_labels_on_every_device(device):
    z_s, z_t = (normal(k, 3, 4).astype(np.float32) for k in (0, 1))
    targets = targets_of(labels(0, 3, 4), 4, np.array([1, 0, 1]))
    on_host = distillation_loss(z_s, z_t, targets, 3.0, 0.4).item()
    there = distillation_loss(*(to_device(a, device) for a in (z_s, z_t, targets)), 3.0, 0.4)
    assert there.item() == pytest.approx(on_host, rel=1e-5)
    assert tc.Tensor is type(there)
