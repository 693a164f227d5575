"""Several losses at once: each is what its function says, of the layers that were named."""

import numpy as np
import pytest
from distill_models import CLASSES, bits, blobs, student_net, teacher_net

from tinycompress import nn, optim
from tinycompress.backend import to_device, to_numpy
from tinycompress.compress.distill import (
    Attention,
    Decoupled,
    DistillationObjective,
    Hint,
    Labels,
    LogitMatching,
    Relations,
    SoftTargets,
    attention_transfer_loss,
    decoupled_loss,
    distill,
    distillation_loss,
    hint_loss,
    label_loss,
    learned_adapters,
    logit_matching_loss,
    relational_angle_loss,
    relational_distance_loss,
    soft_target_loss,
    with_teacher_logits,
)
from tinycompress.compress.distill.adapters import Adapter
from tinycompress.data import Dataset
from tinycompress.tensor import Tensor
from tinycompress.train import Callback, fit, predict, value_and_grad


@pytest.fixture(scope="module")
def teacher():
    model = teacher_net()
    fit(model, blobs(400), 4, optim.Adam(model.parameters(), lr=3e-3), workers=1)
    return model


def run_to(model, x, name):
    """What the layer of this name gives, in evaluation mode."""
    model = model.copy().eval()
    for child, layer in model.named_children():
        x = layer(x)
        if child == name:
            return x


def value(objective, student, data):
    return objective(student.copy().eval(), *data.arrays)[0].item()


# ------------------------------------------------------------------------------ what each one is


def expected_of(term, student, teacher, data):
    z_s, z_t = predict(student, data.images), predict(teacher, data.images)
    y, x = data.labels, data.images
    return {
        "SoftTargets": lambda: soft_target_loss(z_s, z_t, 3.0),
        "Labels": lambda: label_loss(z_s, y),
        "LogitMatching": lambda: logit_matching_loss(z_s, z_t),
        "Decoupled": lambda: decoupled_loss(z_s, z_t, y, 4.0, 1.0, 8.0),
        "Attention": lambda: attention_transfer_loss(
            run_to(student, x, "relu"), run_to(teacher, x, "pool")
        ),
        "Hint": lambda: hint_loss(run_to(student, x, "fc"), run_to(teacher, x, "fc2")),
        "Relations": lambda: (
            term.distance
            * relational_distance_loss(run_to(student, x, "relu"), run_to(teacher, x, "fc1"))
            + term.angle
            * relational_angle_loss(run_to(student, x, "relu"), run_to(teacher, x, "fc1"))
        ),
    }[type(term).__name__]().item()


@pytest.mark.parametrize(
    "term",
    [
        SoftTargets(0.5, temperature=3.0),
        Labels(0.5),
        LogitMatching(0.5),
        Decoupled(0.5),
        Attention("relu", "pool", 0.5),
        Hint("fc", "fc2", 0.5, adapter=None),
        Relations("relu", "fc1", 0.5),
        Relations("relu", "fc1", 0.5, distance=3.0, angle=0.3),
    ],
    ids=lambda term: type(term).__name__,
)
def test_a_term_is_its_loss_times_its_weight(term, teacher):
    student, data = student_net(), blobs(8)
    objective = DistillationObjective(alpha=None, teacher=teacher, terms=[term])
    expected = 0.5 * expected_of(term, student, teacher, data)
    assert value(objective, student, data) == pytest.approx(expected, rel=1e-5)


def test_relations_of_logits_need_no_layers(teacher):
    student, data = student_net(), blobs(8)
    objective = DistillationObjective(alpha=None, terms=[Relations(angle=0.0)])
    assert not objective.needs_layers
    z_s, z_t = predict(student, data.images), predict(teacher, data.images)
    found = value(objective, student, with_teacher_logits(teacher, data))
    assert found == pytest.approx(relational_distance_loss(z_s, z_t).item(), rel=1e-5)


def test_the_papers_weigh_angles_twice_as_much_as_distances():
    assert (Relations().distance, Relations().angle) == (1, 2)


def test_relations_of_logits_are_those_of_the_teacher_that_they_name(teacher):
    student, other, data = student_net(), teacher_net(), blobs(8)
    objective = DistillationObjective(
        alpha=None, teacher=[teacher, other], terms=[Relations(angle=0.0, teacher=1)]
    )
    z_s, z_t = predict(student, data.images), predict(other, data.images)
    expected = relational_distance_loss(z_s, z_t).item()
    assert value(objective, student, data) == pytest.approx(expected, rel=1e-5)


def test_the_teachers_logits_are_the_last_arrays_of_the_data(teacher):
    """Whatever stands between the labels and them."""
    student, data = student_net(), blobs(8)
    more = data.with_array(np.ones((8, CLASSES), np.float32))
    for teachers in (teacher, [teacher, teacher_net()]):
        objective = DistillationObjective(
            3.0, 0.7, teacher_weights=None if teachers is teacher else [1, 1]
        )
        plain = value(objective, student, with_teacher_logits(teachers, data))
        assert value(objective, student, with_teacher_logits(teachers, more)) == plain


def test_terms_add_up_with_the_formula(teacher):
    student, data = student_net(), blobs(8)
    terms = [LogitMatching(0.1), Attention("relu", "relu", 2.0)]
    whole = DistillationObjective(3.0, 0.7, teacher, terms)
    alone = [DistillationObjective(alpha=None, teacher=teacher, terms=[t]) for t in terms]
    z_s, z_t = predict(student, data.images), predict(teacher, data.images)
    expected = distillation_loss(z_s, z_t, data.labels, 3.0, 0.7).item()
    expected += sum(value(objective, student, data) for objective in alone)
    assert value(whole, student, data) == pytest.approx(expected, rel=1e-5)


def test_missing_labels_give_the_teacher_the_whole_weight(teacher):
    student, data = student_net(), blobs(8)
    known = (np.arange(8) % 2).astype(np.float32)[:, None]
    targets = np.eye(CLASSES, dtype=np.float32)[data.labels] * known
    partly = Dataset(data.images, targets)
    z_s, z_t = predict(student, data.images), predict(teacher, data.images)
    expected = distillation_loss(z_s, z_t, targets, 3.0, 0.2).item()
    found = value(DistillationObjective(3.0, 0.2, teacher), student, partly)
    assert found == pytest.approx(expected, rel=1e-5)


# -------------------------------------------------------------------------------- several teachers


def test_several_teachers_are_a_weighted_mean_of_losses(teacher):
    other, student, data = teacher_net(), student_net(), blobs(8)
    z_s, z_1, z_2 = (predict(m, data.images) for m in (student, teacher, other))
    expected = label_loss(z_s, data.labels).item() * 0.3
    expected += 0.7 * 0.75 * soft_target_loss(z_s, z_1, 2.0).item()
    expected += 0.7 * 0.25 * soft_target_loss(z_s, z_2, 2.0).item()
    asked = DistillationObjective(2.0, 0.7, [teacher, other], teacher_weights=[3, 1])
    assert value(asked, student, data) == pytest.approx(expected, rel=1e-5)
    cached = DistillationObjective(2.0, 0.7, teacher_weights=[3, 1])
    both = with_teacher_logits([teacher, other], data)
    assert value(cached, student, both) == pytest.approx(expected, rel=1e-5)


def test_several_teachers_draw_towards_the_mean_of_their_softened_probabilities(teacher):
    """Their derivative is that of one teacher who answers with that mean."""
    T, student, data = 2.0, student_net().eval(), blobs(8)
    teachers = [teacher, teacher_net()]
    p = [np.exp(predict(m, data.images).astype(np.float64) / T) for m in teachers]
    mean = sum(w * q / q.sum(axis=1, keepdims=True) for w, q in zip((0.8, 0.2), p, strict=True))
    one = data.with_array((T * np.log(mean)).astype(np.float32))
    several = DistillationObjective(T, 1.0, teachers, teacher_weights=[0.8, 0.2])
    a = value_and_grad(several, student, data.arrays, key=0, workers=1)
    b = value_and_grad(DistillationObjective(T, 1.0), student, one.arrays, key=0, workers=1)
    for g, h in zip(a.gradients, b.gradients, strict=True):
        np.testing.assert_allclose(g, h, atol=1e-6)


def test_a_hint_comes_from_the_teacher_that_it_names(teacher):
    """The other one need not have such a layer."""
    layers = {"flatten": nn.Flatten(), "hidden": nn.Linear(36, 24), "out": nn.Linear(24, CLASSES)}
    other, student, data = nn.Sequential(layers), student_net(), blobs(8)
    adapter = nn.Sequential(nn.Flatten(), nn.Linear(48, 24))
    hint = Hint("relu", "hidden", teacher=1, adapter=adapter)
    objective = DistillationObjective(alpha=None, teacher=[teacher, other], terms=[hint])
    with learned_adapters(objective, student, data.images):
        adapted = objective.adapters[0](run_to(student, data.images, "relu"))
        expected = hint_loss(adapted, run_to(other, data.images, "hidden")).item()
        assert value(objective, student, data) == pytest.approx(expected, rel=1e-5)


# ------------------------------------------------------------------------------------ adapters


@pytest.mark.parametrize("layers", [("conv", "conv"), ("relu", "pool"), ("conv", "fc1")])
def test_an_adapter_is_learned_with_the_student_and_left_behind(layers, teacher):
    weights, losses, start = [], [], student_net()

    class Watch(Callback):
        def on_epoch_end(self, run):
            weights.append(dict(run.model.named_parameters())["adapter0_weight"].data.copy())
            losses.append(run.history[-1].loss)

    small = distill(
        teacher,
        start,
        blobs(200),
        epochs=4,
        alpha=None,
        terms=[Hint(*layers, weight=0.05)],
        optimizer=optim.Adam(start.parameters(), lr=0.01),
        callbacks=[Watch()],
        workers=1,
    )
    assert [n for n, _ in small.named_parameters()] == [n for n, _ in start.named_parameters()]
    assert losses == sorted(losses, reverse=True)
    assert all(not np.array_equal(weights[0], later) for later in weights[1:])
    assert not np.array_equal(small.conv.weight.data, start.conv.weight.data)
    np.testing.assert_array_equal(small.fc.weight.data, start.fc.weight.data)  # after the hint


def test_an_optimizer_is_given_back_as_it_was(teacher):
    student, data = student_net(), blobs(100)
    optimizer = optim.Adam(student.parameters(), lr=0.01)
    count = len(optimizer.param_groups[0]["params"])
    objective = DistillationObjective(2.0, 0.5, teacher, [Hint("conv", "conv", 0.01)])
    with learned_adapters(objective, student, data.images, optimizer):
        assert len(optimizer.param_groups[0]["params"]) == count + 2
        fit(student, data, 1, optimizer, objective=objective, workers=1)
    assert len(optimizer.param_groups[0]["params"]) == count
    assert sorted(optimizer.state) == list(range(count))
    fit(student, data, 1, optimizer, workers=1)  # and goes on


def test_an_adapter_of_ones_own_is_copied_and_trained(teacher):
    own = nn.Sequential(nn.Flatten(), nn.Linear(48, 24))
    before = bits(own)
    distill(
        teacher, student_net(), blobs(64), epochs=1, terms=[Hint("relu", "fc1", 0.1, adapter=own)]
    )
    assert bits(own) == before


def test_an_adapter_is_trained_in_training_mode(teacher):
    own = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 24)).eval()
    hint, student = Hint("relu", "fc1", adapter=own), student_net()
    objective = DistillationObjective(alpha=None, teacher=teacher, terms=[hint])
    with learned_adapters(objective, student, blobs(8).images):
        assert all(m.training for m in objective.adapters[0].modules())
    assert not any(m.training for m in own.modules())


@pytest.mark.parametrize(
    ("source", "target"), [((40, 6, 6), (50, 4, 5)), ((40, 6, 6), (500,)), ((600,), (500,))]
)
def test_an_adapter_starts_as_a_map_that_keeps_the_features_size(source, target):
    adapter = Adapter(source, target)
    x = np.random.default_rng(99).normal(0, 1, (64, *source)).astype(np.float32)
    y = adapter(Tensor(x)).data
    assert y.shape == (64, *target)
    assert y.std() == pytest.approx(1, rel=0.1)
    assert not adapter.bias.data.any()


def test_without_an_adapter_shapes_must_be_the_same(teacher):
    with pytest.raises(ValueError, match="an adapter makes them so"):
        distill(
            teacher, student_net(), blobs(8), epochs=1, terms=[Hint("conv", "conv", adapter=None)]
        )
    twin = teacher_net()
    distill(teacher, twin, blobs(8), epochs=1, terms=[Hint("conv", "conv", adapter=None)])


def test_it_runs_on_every_device(teacher, device):
    terms = [Hint("conv", "conv", 0.01), Attention("relu", "pool"), Relations(), Decoupled(0.1)]
    student = student_net().to(device)
    small = distill(teacher, student, blobs(24), epochs=1, terms=terms, batch_size=12)
    assert small.device == student.device
    on_host = value(DistillationObjective(2.0, 0.5, teacher, terms[1:]), student_net(), blobs(8))
    assert np.isfinite(on_host)
    student = student_net()
    there = DistillationObjective(2.0, 0.5, teacher.copy().to(device), terms[1:])
    found = there(
        student.copy().eval().to(device), *(to_device(a, device) for a in blobs(8).arrays)
    )[0]
    here = value(DistillationObjective(2.0, 0.5, teacher, terms[1:]), student, blobs(8))
    assert float(to_numpy(found.data)) == pytest.approx(here, rel=1e-4)


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([Hint("nowhere", "conv")], "no layer 'nowhere'"),
        ([Hint("conv", "nowhere")], "no layer 'nowhere'"),
        ([Attention("conv", "conv", teacher=1)], "the last teacher is number 0, counted from 0"),
        ([Hint("fc", "conv")], r"no adapter from features \(5,\) to \(8, 4, 4\)"),
        ([Hint("conv", "conv", adapter=nn.BatchNorm2d(3))], "has buffers"),
        ([Hint("conv", "conv", adapter=nn.Conv2d(3, 7, 1))], r"makes \(7, 4, 4\)"),
        ([Attention("fc", "conv")], r"student's 'fc' and the teacher's 'conv': .*\(N, C, H, W\)"),
    ],
    ids=str,
)
def test_layers_that_do_not_fit_are_refused_by_name(terms, message, teacher):
    start = student_net()
    before = bits(start)
    with pytest.raises(ValueError, match=message):
        distill(teacher, start, blobs(8), epochs=1, terms=terms, workers=1)
    assert bits(start) == before


@pytest.mark.parametrize(
    "make",
    [
        lambda: SoftTargets(-1.0),
        lambda: SoftTargets(1.0, temperature=0.0),
        lambda: Labels(float("nan")),
        lambda: Decoupled(beta=-1.0),
        lambda: Hint("a", "b", adapter="learned"),
        lambda: Hint("a", "b", teacher=-1),
        lambda: Relations("a", None),
        lambda: Relations(angle=float("inf")),
        lambda: DistillationObjective(alpha=None),
        lambda: DistillationObjective(teacher=[]),
        lambda: DistillationObjective(teacher=[nn.ReLU()], teacher_weights=[1, 2]),
        lambda: DistillationObjective(teacher_weights=[0.0]),
        lambda: DistillationObjective(terms=[Hint("conv", "conv")]),
    ],
)
def test_numbers_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match=r"weight|temper|beta|adapter|teacher|layer|terms|angle"):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hint(None, None), "a layer is named by a string, got None"),
        (lambda: Hint(0, 0), "a layer is named by a string, got 0"),
        (lambda: Attention("conv", None), "a layer is named by a string"),
        (lambda: Hint("a", "b", weight="1"), "Hint: weight must be a number, got '1'"),
        (lambda: SoftTargets(temperature="4"), "temperature must be a number, got '4'"),
        (lambda: Decoupled(alpha=None), "decoupled: alpha must be a number"),
        (lambda: DistillationObjective(alpha="all"), "alpha.* must be a number"),
    ],
    ids=["no layers", "numbered", "one", "weight", "temperature", "decoupled", "alpha"],
)
def test_what_is_no_name_and_no_number_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("terms", [[Hint], ["conv"], [hint_loss]])
def test_what_is_no_term_is_refused(terms):
    with pytest.raises(TypeError, match="terms must be terms"):
        DistillationObjective(terms=terms)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="teacher must be a model or several"):
        DistillationObjective(teacher=["model.tcz"])


def test_a_hint_without_its_adapter_says_where_to_get_it(teacher):
    objective = DistillationObjective(teacher=teacher, terms=[Hint("conv", "conv")])
    with pytest.raises(ValueError, match="learned_adapters"):
        objective(student_net(), *blobs(4).arrays)
