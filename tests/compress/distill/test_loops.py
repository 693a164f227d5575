"""Loops around distillation: ensembles, born-again students, students that teach each other."""

import numpy as np
import pytest
from distill_models import bits, blobs, plain_student, student_net, teacher_net
from scipy.special import log_softmax, softmax

import tinycompress as tc
from tinycompress import optim
from tinycompress.compress.distill import (
    Ensemble,
    Hint,
    LogitMatching,
    MutualObjective,
    Relations,
    born_again,
    compare,
    distill,
    mutual_learning,
)
from tinycompress.compress.prune.gradual import GradualPruning
from tinycompress.data import Dataset, RandomShift
from tinycompress.tensor import Tensor
from tinycompress.train import Callback, evaluate, fit, predict, value_and_grad


def adam(model):
    return optim.Adam(model.parameters(), lr=0.01)


@pytest.fixture(scope="module")
def teacher():
    model = teacher_net()
    fit(model, blobs(1000), 8, optim.Adam(model.parameters(), lr=3e-3), workers=1)
    return model


# -------------------------------------------------------------------------------- the ensemble


def test_an_ensemble_is_the_mean_of_logits_or_of_probabilities(teacher):
    models, x = [teacher, teacher_net(), student_net()], blobs(10).images
    z = [predict(m, x).astype(np.float64) for m in models]
    weights = np.array([2, 1, 1]) / 4
    of_logits = sum(w * each for w, each in zip(weights, z, strict=True))
    of_probabilities = np.log(
        sum(w * softmax(each, axis=1) for w, each in zip(weights, z, strict=True))
    )
    found = predict(Ensemble(models, [2, 1, 1]), x)
    np.testing.assert_allclose(found, of_logits, atol=1e-5)
    found = predict(Ensemble(models, [2, 1, 1], mean="probabilities"), x)
    np.testing.assert_allclose(found, of_probabilities, atol=1e-5)


def test_the_mean_of_logits_is_the_geometric_mean_at_every_temperature(teacher):
    models, x = [teacher, teacher_net()], blobs(10).images
    z = [predict(m, x).astype(np.float64) for m in models]
    for T in (1, 5):
        geometric = log_softmax(sum(log_softmax(each / T, axis=1) for each in z) / 2, axis=1)
        found = log_softmax(predict(Ensemble(models), x) / T, axis=1)
        np.testing.assert_allclose(found, geometric, atol=1e-5)


def test_an_ensemble_is_one_teacher(teacher, device):
    models = [teacher.copy().to(device), teacher_net().to(device)]
    start = student_net().to(device)
    for augment in (None, lambda images, generator: images * 0.9):
        for mean in ("logits", "probabilities"):
            both = Ensemble(models, mean=mean)
            small = distill(both, start, blobs(40), epochs=1, augment=augment)
            assert small.device == start.device


def test_an_ensemble_of_certain_models_has_finite_logits():
    """Even where float32 has no number for a probability."""
    certain, images = enlarged(1e4), blobs(4).images
    z = predict(certain, images).astype(np.float64)
    assert softmax(z, axis=1).astype(np.float32).min() == 0
    both = Ensemble([certain, certain], mean="probabilities")
    assert np.isfinite(predict(both, images)).all()


def enlarged(factor):
    model = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(36, 5))
    model[1].weight.data *= factor
    return model


def test_ensembles_that_are_none_are_refused(teacher):
    with pytest.raises(ValueError, match="empty"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"2 weights for 1 teacher$"):
        Ensemble([teacher], [1, 2])
    for weights in ([1e308, 1e308], [-1, 2], [0, 0], [np.nan, 1], {}):
        with pytest.raises(ValueError, match="numbers ≥ 0 with a finite sum above 0, got"):
            Ensemble([teacher, teacher], weights)
    for weights in (["1", 2], [None, 1], [True, 1], np.ones((2, 1)), "12", 3):
        with pytest.raises(TypeError, match="teacher_weights must be a list of numbers, got"):
            Ensemble([teacher, teacher], weights)
    with pytest.raises(ValueError, match="mean must be one of logits, probabilities"):
        Ensemble([teacher], mean="median")
    with pytest.raises(ValueError, match="there must be 1 to 1,000 weights"):
        Ensemble(None, [1.0] * 1001)
    with pytest.raises(
        ValueError, match=r"same classes apart, got outputs of \(2, 5\) and \(2, 1\)"
    ):
        Ensemble([teacher, tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(36, 1))])(
            blobs(2).images
        )  # which NumPy would add up


@pytest.mark.parametrize("weights", [None, [2, 1], [1 / 10, 8 / 7]])
@pytest.mark.parametrize("mean", ["logits", "probabilities"])
def test_an_ensemble_is_kept_in_a_file_and_answers_the_same(weights, mean, teacher, tmp_path):
    both = Ensemble([teacher, Ensemble([plain_student()])], weights, mean)
    tc.save(both, tmp_path / "both.tcz")
    loaded = tc.load(tmp_path / "both.tcz")
    assert isinstance(loaded, Ensemble)
    assert loaded.weights == both.weights
    images = blobs(10).images
    np.testing.assert_array_equal(predict(loaded, images), predict(both, images))
    small = distill(loaded, plain_student(), blobs(20), epochs=1, workers=1)
    assert sorted(bits(small)) == sorted(bits(plain_student()))


# ------------------------------------------------------------------------------------ born again


def test_each_generation_learns_from_the_one_before(teacher):
    """As the same calls of distill, one after the other."""
    options = {"epochs": 2, "temperature": 3.0, "alpha": 0.8, "workers": 1}
    tc.manual_seed(1)
    born = born_again(
        teacher, plain_student, blobs(120), generations=3, make_optimizer=adam, **options
    )
    tc.manual_seed(1)
    master = teacher
    for child in born:
        student = plain_student()
        master = distill(master, student, blobs(120), optimizer=adam(student), **options)
        assert bits(child) == bits(master)
    assert len({bits(child)["conv.weight"] for child in born}) == 3


def test_a_line_of_generations_is_resumed_with_the_same_bits(teacher, tmp_path):
    class Stop(Callback):
        runs = 0

        def on_epoch_end(self, run):
            Stop.runs += 1
            if Stop.runs == 6:  # in the third generation
                raise KeyboardInterrupt

    def run(**options):
        tc.manual_seed(1)
        return born_again(
            teacher, plain_student, blobs(60), generations=3, epochs=2, workers=1,
            make_optimizer=adam, make_schedule=lambda o: optim.StepLR(o, 1, 0.5), **options,
        )  # fmt: skip

    whole = run()
    options = {"checkpoint": tmp_path / "born.safetensors", "resume": True}
    with pytest.raises(KeyboardInterrupt):
        run(callbacks=[Stop()], **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"born-{k}.safetensors" for k in (1, 2, 3)
    ]
    for child, expected in zip(run(**options), whole, strict=True):
        assert bits(child) == bits(expected)


def test_a_student_that_is_not_made_anew_is_refused(teacher):
    student = plain_student()
    with pytest.raises(TypeError, match="a function that makes a new model"):
        born_again(teacher, student, blobs(8), epochs=1)
    for master in (teacher, [plain_student(), teacher]):
        with pytest.raises(ValueError, match="the same model"):
            born_again(master, lambda: teacher, blobs(8), epochs=1)
    with pytest.raises(TypeError, match="must make a model, it made a int"):
        born_again(teacher, lambda: 3, blobs(8), epochs=1)
    with pytest.raises(ValueError, match="generations"):
        born_again(teacher, plain_student, blobs(8), epochs=1, generations=0)


def test_what_a_later_generation_cannot_do_is_refused_before_the_first_is_trained(teacher):
    class Never(Callback):
        def on_fit_begin(self, run):
            pytest.fail("it was trained")

    given = {"epochs": 1, "generations": 2, "callbacks": [Never()]}
    for terms, message in [
        ([Hint("conv", "conv", teacher=1)], "the last teacher is number 0"),
        ([Relations("fc", "fc2")], "no layer 'fc2'"),
    ]:
        with pytest.raises(ValueError, match=f"born_again: a later generation .*{message}"):
            born_again([teacher, teacher_net()], plain_student, blobs(8), terms=terms, **given)
    for name, value in [("optimizer", optim.Adam(teacher.parameters())), ("schedule", None)]:
        with pytest.raises(TypeError, match=f"{name} is for one student, .* make_{name}=…"):
            born_again(teacher, plain_student, blobs(8), **given, **{name: value})
    first = {"epochs": 1, "generations": 1, "workers": 1, "terms": [Hint("conv", "fc2", teacher=1)]}
    assert len(born_again([teacher, teacher_net()], plain_student, blobs(8), **first)) == 1


def test_every_generation_has_the_terms(teacher):
    """Also where they come from a generator, which is empty after the first."""
    born = []
    for terms in ([LogitMatching(2.0)], iter([LogitMatching(2.0)])):
        tc.manual_seed(1)
        born.append(
            born_again(
                teacher, plain_student, blobs(20), generations=2, epochs=1, terms=terms, workers=1
            )
        )
    assert bits(born[0][1]) == bits(born[1][1])


def test_weights_of_teachers_are_those_of_the_first_generation(teacher):
    options = {"epochs": 1, "workers": 1, "generations": 2}
    tc.manual_seed(1)
    born = born_again(
        [teacher, teacher_net()], plain_student, blobs(40), teacher_weights=[1, 0], **options
    )
    tc.manual_seed(1)
    teacher_net()
    alone = born_again(teacher, plain_student, blobs(40), **options)
    for child, other in zip(born, alone, strict=True):
        for name, array in child.state_dict().items():
            np.testing.assert_allclose(array, other.state_dict()[name], atol=1e-5)


def test_a_schedule_without_an_optimizer_moves_the_rate_of_adam(teacher):
    rates = []

    class Watch(Callback):
        def on_epoch_end(self, run):
            rates.append(run.history[-1].lr)

    born_again(
        teacher, plain_student, blobs(20), generations=1, epochs=2, workers=1, callbacks=[Watch()],
        make_schedule=lambda rule: optim.StepLR(rule, 1, 0.5),
    )  # fmt: skip
    assert rates == [0.001, 0.0005]


# -------------------------------------------------------------------------------- mutual learning


def mutual_reference(z, y, T, weight):
    """Σ_k L_k, written out."""
    total = 0.0
    for k, own in enumerate(z):
        total -= log_softmax(own, axis=1)[np.arange(len(y)), y].mean()
        for other, peer in enumerate(z):
            if other != k:
                p = softmax(peer / T, axis=1)
                kl = p * (log_softmax(peer / T, axis=1) - log_softmax(own / T, axis=1))
                total += weight / (len(z) - 1) * T**2 * kl.sum(axis=1).mean()
    return total


def test_the_loss_is_the_sum_over_all_students():
    models, data = [student_net().eval() for _ in range(3)], blobs(10)
    z = [predict(m, data.images).astype(np.float64) for m in models]
    loss, outputs = MutualObjective(2.0, 0.7)(Ensemble(models).eval(), *data.arrays)
    assert loss.item() == pytest.approx(mutual_reference(z, data.labels, 2.0, 0.7), rel=1e-5)
    np.testing.assert_allclose(outputs.data, sum(z) / 3, atol=1e-5)


def test_a_student_is_moved_by_its_own_loss_alone():
    """The peers' answers are constants to it."""
    models, data = [plain_student() for _ in range(2)], blobs(10)
    cohort = Ensemble(models)
    objective = MutualObjective(2.0)
    found = value_and_grad(objective, cohort, data.arrays, workers=1, key=0).gradients
    peer = models[1](data.images).data

    def own_loss(model, images, labels):
        z = model(images)
        soft = tc.compress.distill.soft_target_loss(z, peer, 2.0)
        return soft + tc.functional.cross_entropy(z, labels), z

    expected = value_and_grad(own_loss, models[0], data.arrays, workers=1, key=0).gradients
    for g, h in zip(found, expected, strict=False):
        np.testing.assert_allclose(g, h, atol=1e-6)


def test_models_that_were_given_are_left_alone_and_come_back_in_their_order():
    models = [student_net(), plain_student()]
    before = [bits(m) for m in models]
    trained = mutual_learning(models, blobs(60), epochs=1, workers=1)
    assert [bits(m) for m in models] == before
    assert [type(m) for m in trained] == [type(m) for m in models]
    assert [sorted(bits(m)) for m in trained] == [sorted(b) for b in before]


def test_weight_zero_is_each_alone():
    models, data = [plain_student(), plain_student()], blobs(60)
    optimizer = optim.SGD([p for m in models for p in m.parameters()], lr=0.05)
    together = mutual_learning(
        models, data, epochs=2, weight=0.0, optimizer=optimizer, workers=1, batch_size=20
    )
    for model, trained in zip(models, together, strict=True):
        fit(model, data, 2, optim.SGD(model.parameters(), lr=0.05), batch_size=20, workers=1)
        for name, array in model.state_dict().items():
            np.testing.assert_allclose(trained.state_dict()[name], array, atol=1e-5)


def test_students_that_learn_together_agree_more():
    data, test = blobs(300), blobs(500, seed=2)
    tc.manual_seed(0)
    models = [plain_student() for _ in range(3)]
    agreement = []
    for weight in (0.0, 3.0):
        optimizer = optim.Adam([p for m in models for p in m.parameters()], lr=0.01)
        trained = mutual_learning(
            models, data, epochs=5, weight=weight, optimizer=optimizer, workers=1, batch_size=20
        )
        agreement.append(compare(trained[0], trained[1], test).agreement)
        assert min(evaluate(m, test).accuracy for m in trained) > 0.7
    assert agreement[1] > agreement[0]


def test_a_cohort_runs_on_workers_pruned_and_resumed(tmp_path):
    models = [student_net(), plain_student()]

    class Stop(Callback):
        def on_step_end(self, run):
            if run.step == 5:
                raise KeyboardInterrupt

    def run(*callbacks, **options):
        tc.manual_seed(3)
        return mutual_learning(
            models, blobs(100), epochs=2, batch_size=25, shard_size=8, augment=RandomShift(1),
            callbacks=[GradualPruning(0.5, every=1), *callbacks], **options,
        )  # fmt: skip

    alone = [bits(m) for m in run(workers=1)]
    assert [bits(m) for m in run(workers=2)] == alone
    options = {"checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 2, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        run(Stop(), workers=1, **options)
    assert [bits(m) for m in run(workers=1, **options)] == alone


def test_cohorts_that_are_none_are_refused():
    model = plain_student()
    for models in ([model], [model, model]):
        with pytest.raises(ValueError, match="two models or more"):
            mutual_learning(models, blobs(8), epochs=1)
    for data in (Dataset(blobs(8).images), blobs(8).images):
        with pytest.raises(ValueError, match=r"tc.data.Dataset with labels"):
            mutual_learning([model, plain_student()], data, epochs=1)
    with pytest.raises(ValueError, match="weight must be"):
        mutual_learning([model, plain_student()], blobs(8), epochs=1, weight=-1.0)
    with pytest.raises(TypeError, match="its own objective"):
        mutual_learning([model, plain_student()], blobs(8), epochs=1, objective=MutualObjective())


def test_a_cohort_on_every_device(device):
    models = [plain_student().to(device), plain_student().to(device)]
    trained = mutual_learning(models, blobs(40), epochs=1)
    assert [m.device for m in trained] == [m.device for m in models]
    assert isinstance(trained[0](blobs(2).to(trained[0].device).images), Tensor)


def test_models_of_a_cohort_that_do_not_go_together_are_named():
    """Before anything is trained."""
    data, model = blobs(8), plain_student()
    one = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(36, 1))
    with pytest.raises(ValueError, match=r"the models tell \[5, 1\] classes apart"):
        mutual_learning([model, one], data, epochs=1)
    wide = tc.nn.Sequential(tc.nn.Flatten(), tc.nn.Linear(40, 5))
    with pytest.raises(ValueError, match="mutual_learning: model 1 does not take these images"):
        mutual_learning([model, wide], data, epochs=1)
