"""No unit's weights are longer than the limit, at any time, and shorter ones are left alone."""

import numpy as np
import pytest
from problems import bits, blobs, cnn, perceptron

from tinycompress import nn, optim, random
from tinycompress.backend import to_device, to_numpy
from tinycompress.train import Callback, MaxNorm, fit
from tinycompress.train.max_norm import limit_norms


def norms(weight):
    w = to_numpy(weight.data).astype(np.float64)
    return np.sqrt((w.reshape(len(w), -1) ** 2).sum(axis=1))


def test_long_rows_are_shortened_to_the_limit_and_short_ones_left_alone(rng, device):
    for shape in ((6, 4), (6, 2, 3, 3)):
        sizes = np.arange(6).reshape(6, *[1] * (len(shape) - 1))
        w = (rng.normal(0, 1, shape) * sizes).astype(np.float32)
        weight = nn.Parameter(to_device(w, device))
        before = norms(weight)
        limit = float(np.sort(before)[3]) + 0.01
        limit_norms(weight, limit)
        np.testing.assert_allclose(norms(weight), np.minimum(before, limit), rtol=1e-6)
        after, short = to_numpy(weight.data), before < limit
        np.testing.assert_array_equal(after[short], w[short])
        for row, old in zip(after[~short], w[~short], strict=True):
            np.testing.assert_allclose(row / old, limit / np.linalg.norm(old), rtol=1e-5)


def test_it_holds_after_every_step_and_for_the_layers_that_are_not_skipped():
    seen = []

    class Watch(Callback):
        def on_step_end(self, run):
            seen.append([norms(run.model.fc1.weight).max(), norms(run.model.fc2.weight).max()])

    model = perceptron()
    rule = optim.SGD(model.parameters(), lr=1.0)
    fit(model, blobs(), 2, rule, callbacks=[MaxNorm(0.5, skip="fc2"), Watch()], workers=1,
        batch_size=50)  # fmt: skip
    assert len(seen) == 8
    assert max(fc1 for fc1, _ in seen) <= 0.5 * (1 + 1e-6)
    assert min(fc2 for _, fc2 in seen) > 0.5


def test_workers_and_masks_and_a_resumed_run_see_the_same(tmp_path):
    start = cnn()
    start.fc.weight.mask = np.random.default_rng(0).random(start.fc.weight.shape) < 0.5
    start.fc.weight.data *= start.fc.weight.mask

    class Stop(Callback):
        def on_step_end(self, run):
            if run.step == 5:
                raise KeyboardInterrupt

    def run(*callbacks, **options):
        random.manual_seed(0)
        model = start.copy()
        rule = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        fit(model, blobs(), 2, rule, callbacks=[MaxNorm(1.0), *callbacks], batch_size=50,
            shard_size=13, **options)  # fmt: skip
        return model

    alone = run(workers=1)
    assert norms(alone.conv.weight).max() <= 1 + 1e-6
    assert not alone.fc.weight.data[~alone.fc.weight.mask].any()
    assert bits(run(workers=2)) == bits(alone)
    options = {"checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 2, "resume": True}
    with pytest.raises(KeyboardInterrupt):
        run(Stop(), workers=1, **options)
    assert bits(run(workers=1, **options)) == bits(alone)


def test_what_cannot_be_limited_is_refused():
    with pytest.raises(ValueError, match="limit must be a finite number > 0"):
        MaxNorm(0.0)
    with pytest.raises(ValueError, match="skip='fc9' fits no"):
        fit(perceptron(), blobs(), 1, callbacks=[MaxNorm(1.0, skip=["fc9"])], workers=1)
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        fit(perceptron(), blobs(), 1, callbacks=[MaxNorm(1.0, skip="fc*")], workers=1)
