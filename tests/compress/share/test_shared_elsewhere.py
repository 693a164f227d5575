"""The rest of the package on models with shared weights: counts, reports, and polite refusals."""

import numpy as np
import pytest
from share_cases import mixed, small

import tinycompress as tc
from tinycompress import nn
from tinycompress.compress.prune.costs import macs_of_nonzero


@pytest.fixture(scope="module")
def models():
    """(pruned float model, the same with shared weights)."""
    pruned = tc.prune(small(), 0.75).eval()
    return pruned, tc.share_weights(pruned, 4)


def test_the_summary_counts_weights_and_zeros_as_before(models):
    rows = [tc.summary(model) for model in models]
    for before, after in zip(rows[0].layers, rows[1].layers, strict=True):
        assert after.kind == before.kind.replace("Conv2d", "SharedConv2d").replace(
            "Linear", "SharedLinear"
        )
        assert (after.parameters, after.nonzero, after.macs) == (
            before.parameters,
            before.nonzero,
            before.macs,
        )
    assert (rows[1].parameters, rows[1].nonzero) == (rows[0].parameters, rows[0].nonzero)


def test_layers_with_the_same_weights_are_counted_once():
    model, _ = mixed()
    shared = tc.share_weights(model, 4)
    shape = (1, 8, 8)
    before, after = tc.summary(model, shape), tc.summary(shared, shape)
    assert (after.parameters, after.nonzero) == (before.parameters, before.nonzero)
    assert after.macs == before.macs
    zeros = [tc.sparsity_report(m) for m in (model, shared)]
    assert zeros[0] == zeros[1]
    assert [x.name for x in zeros[1].layers] == ["conv1", "conv2", "head.1"]


def test_layers_with_one_codebook_and_codes_of_their_own_are_counted_each():
    model = tc.share_weights(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False)), 2)
    model[1].codebook = model[0].codebook
    assert tc.summary(model, (4,)).parameters == 16 + 4 + 16


def test_the_sparsity_report_is_that_of_the_pruned_model(models):
    assert tc.sparsity_report(models[1]) == tc.sparsity_report(models[0])
    assert tc.sparsity_report(models[1]).sparsity == pytest.approx(0.75, abs=1e-3)


def test_multiplications_by_zero_are_told_apart(models):
    counts = [macs_of_nonzero(model, (1, 28, 28)) for model in models]
    assert counts[0] == counts[1] < tc.summary(models[1]).macs


def test_multiplications_by_zero_codes_of_quantized_layers_are_told_apart(models):
    codes = tc.quantize(models[0], tc.QuantConfig(16))
    assert macs_of_nonzero(codes, (1, 28, 28)) == macs_of_nonzero(models[0], (1, 28, 28))


def test_reports_measure_the_files(models):
    test = tc.data.mnist()[1].take(100)
    pruned, shared = models
    report = tc.pruning_report(pruned, shared, test, workers=1)
    before, after = report.before, report.after
    assert (after.parameters, after.weights, after.zeros) == (
        before.parameters,
        before.weights,
        before.zeros,
    )
    assert after.nonzero_macs == before.nonzero_macs
    assert after.bytes < before.bytes
    rows = tc.compare({"pruned": pruned, "shared": shared}, test, workers=1)
    assert rows["shared"].nonzero == rows["pruned"].nonzero
    assert rows["shared"].accuracy == tc.evaluate(shared, test, workers=1).accuracy


def test_a_compiled_model_computes_the_same(models):
    x = tc.data.mnist()[1].images[:20]
    with tc.no_grad():
        np.testing.assert_allclose(
            tc.compile(models[1])(x).data, models[1](x).data, rtol=1e-5, atol=1e-5
        )


def test_a_copy_learns_by_itself(models):
    twin = models[1].copy()
    twin.fc.codebook.data += 1
    assert (twin.fc.codebook.data != models[1].fc.codebook.data).all()
    assert twin.fc.codes is not models[1].fc.codes


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: tc.prune(m, 0.9), ValueError, ["conv1", "SharedConv2d", "share"]),
        (lambda m: tc.quantize(m), ValueError, ["nothing to quantize", "SharedConv2d"]),
        (lambda m: tc.prepare_qat(m), ValueError, ["nothing to quantize", "SharedLinear"]),
        (lambda m: tc.dequantize(m), ValueError, ["TinyCNN", "no quantized layer"]),
        (
            lambda m: tc.remove_channels(m, 0.5, sample=np.zeros((1, 1, 28, 28), "f")),
            TypeError,
            ["conv1", "SharedConv2d", "float model"],
        ),
        (
            lambda m: tc.fit(
                m,
                tc.data.mnist()[0].take(10),
                1,
                callbacks=[tc.train.MaxNorm(2.0)],
                workers=1,
            ),
            ValueError,
            ["MaxNorm", "no linear or convolutional layer"],
        ),
    ],
    ids=["prune", "quantize", "prepare_qat", "dequantize", "remove_channels", "max norm"],
)
def test_what_cannot_be_done_with_shared_weights_is_refused_by_name(models, call, error, words):
    before = {name: a.tobytes() for name, a in models[1].state_dict().items()}
    with pytest.raises(error) as caught:
        call(models[1])
    assert [word for word in words if word not in str(caught.value)] == []
    assert {name: a.tobytes() for name, a in models[1].state_dict().items()} == before


def test_what_was_left_in_floats_can_be_quantized_and_the_shared_stays(models):
    model = tc.share_weights(small(), 4, skip="conv*")
    quantized = tc.quantize(model)
    assert [type(m).__name__ for m in (quantized.conv1, quantized.fc)] == [
        "QuantizedConv2d",
        "SharedLinear",
    ]
    x = tc.data.mnist()[1].images[:50]
    np.testing.assert_allclose(quantized(x).data, model(x).data, atol=0.02)
    whole = tc.quantize(model, calibration=tc.data.mnist()[0].images[:100])
    assert np.isfinite(whole(x).data).all()
    assert np.abs(whole(x).data - model(x).data).max() < 0.1


def test_a_sequential_knows_no_difference():
    """A layer with shared weights stands wherever a float one stands."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    shared = tc.share_weights(model, 10)
    x = np.random.default_rng(0).normal(size=(5, 2, 2)).astype("f")
    np.testing.assert_array_equal(shared(x).data, model(x).data)
