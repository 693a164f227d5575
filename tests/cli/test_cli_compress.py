"""``compress``: the chain on the command line; each option does what it says, or is refused."""

import numpy as np
import pytest

import tinycompress as tc
from tinycompress.cli.options import RankingName
from tinycompress.compress.prune.importance import CRITERIA
from tinycompress.compress.share import SharedLayer

ALONE = ("--workers", 1)
FAST = ("--epochs", 1, "--share-epochs", 1, *ALONE)
SHOT = ("--epochs", 0, "--share-epochs", 0, *ALONE)


def different(path):
    """Layer → how many different weights it has, 0 not counted."""
    layers = {n: m for n, m in tc.load(path).named_modules() if isinstance(m, SharedLayer)}
    return {n: len(np.unique(m.weight.data[m.weight.data != 0])) for n, m in layers.items()}


def zeros(path):
    return {layer.name: layer.sparsity for layer in tc.sparsity_report(tc.load(path)).layers}


def test_it_shows_stages_and_layers_and_what_is_in_the_file(run, model_file, accuracy):
    lines = run("compress", model_file, "--bits", 3, "-o", "c.tcz", *FAST).out.splitlines()
    words = [line.split() for line in lines]
    names = [row[0] for row in words if row]
    for name in ("float", "pruned", "emptied", "shared", "fine-tuned", "rounded"):
        assert name in names
    for name in ("conv1", "conv2", "fc", "total"):
        assert name in names
    rounded = words[names.index("rounded")]
    size = (model_file.parent / "c.tcz").stat().st_size
    assert rounded[5] == f"{size:,}"
    assert rounded[1] == f"{100 * (1 - accuracy('c.tcz')):.2f}%"
    assert lines[-1] == "written to c.tcz"
    assert all(n <= 8 for n in different("c.tcz").values())


def test_the_object_has_all_of_it(run_json, model_file, accuracy):
    found = run_json("compress", model_file, "--sparsity", 0.75, "-o", "c.tcz", *FAST)
    assert [stage["name"] for stage in found["stages"]][::5] == ["float", "rounded"]
    assert found["stages"][1]["zeros"] == round(0.75 * 2_324)
    assert found["stages"][-1]["bytes"] == found["bytes"]
    assert found["stages"][0]["bytes"] == found["before"]["bytes"]
    assert found["stages"][-1]["error"] == pytest.approx(found["error"])
    assert found["accuracy"] == pytest.approx(accuracy("c.tcz"))
    assert found["ratio"] == pytest.approx(4 * 2_346 / found["bytes"])
    assert [layer["name"] for layer in found["layers"]] == ["conv1", "conv2", "fc"]
    assert found["layers"][2]["weights"] == 2_000


def test_a_layer_has_a_share_and_bits_of_its_own(run, model_file):
    own = ("--layer", "fc=0.9:2", "--layer", "conv1=0", "--layer", "conv*=:3")
    run("compress", model_file, "--sparsity", 0.5, "--bits", 4, *own, "-o", "c.tcz", *SHOT)
    shares = zeros("c.tcz")
    assert shares["conv1"] == 0
    assert shares["conv2"] >= 0.5
    assert 0.9 <= shares["fc"] < 0.96
    counts = different("c.tcz")
    assert counts["fc"] <= 4 < counts["conv1"]
    assert max(counts.values()) <= 8


def test_a_layer_that_is_skipped_stays_as_it_is(run, model_file):
    run("compress", model_file, "--skip", "conv1", "-o", "c.tcz", *SHOT)
    assert set(different("c.tcz")) == {"conv2", "fc"}
    old = tc.load(model_file).conv1.weight.data
    np.testing.assert_array_equal(tc.load("c.tcz").conv1.weight.data, old)


def test_numbers_are_rounded_to_two_bytes_unless_they_are_not(run, model_file):
    for options, rounded in (((), True), (("--no-half",), False)):
        run("compress", model_file, *options, "-o", "c.tcz", *SHOT)
        codebook = tc.load("c.tcz").fc.codebook.data
        assert (codebook == codebook.astype(np.float16)).all() == rounded


def test_biases_keep_as_many_bits_as_they_are_given(run, model_file):
    run("compress", model_file, "--bias-bits", 1, "-o", "c.tcz", *SHOT)
    assert set(np.abs(np.frexp(tc.load("c.tcz").fc.bias.data)[0])) <= {0, 0.5}


def test_what_tells_which_weights_go(run, model_file):
    for name in ("magnitude", "lamp"):
        run("compress", model_file, "--importance", name, "-o", f"{name}.tcz", *SHOT)
        thin = tc.prune(tc.load(model_file), 0.9, name)
        zeros = tc.load(f"{name}.tcz").fc.weight.data == 0
        assert zeros[thin.fc.weight.data == 0].all()
    one, other = (tc.sparsity_report(tc.load(f"{n}.tcz"))["fc"] for n in ("magnitude", "lamp"))
    assert one != other


def test_rankings_are_criteria_that_look_at_weights_alone():
    by_weight = [name for name, c in CRITERIA.items() if c.gradients == "unused"]
    assert [*RankingName] == [*by_weight, "random"]


@pytest.mark.parametrize("init", ["density", "random"])
def test_where_codebooks_start(init, run, model_file):
    run("compress", model_file, "--scope", "local", "--init", init, "-o", "c.tcz", *SHOT)
    run("compress", model_file, "--scope", "local", "-o", "linear.tcz", *SHOT)
    one, other = (tc.load(path).fc.codebook.data for path in ("c.tcz", "linear.tcz"))
    assert not np.array_equal(one, other)


def test_zeros_of_before_stay_where_nothing_is_pruned(run, model_file):
    run("prune", model_file, "--sparsity", 0.9, "-o", "p.tcz", "--epochs", 0, *ALONE)
    run("compress", "p.tcz", "--keep-zeros", "-o", "c.tcz", *FAST)
    before, after = tc.load("p.tcz"), tc.load("c.tcz")
    for name in ("conv1", "conv2", "fc"):
        zero = before.get_submodule(name).weight.data == 0
        assert not after.get_submodule(name).weight.data[zero].any()


def test_a_teacher_is_listened_to(run, model_file, digits):
    teacher = tc.models.TinyCNN()
    tc.fit(teacher, digits[0], 3, workers=1)
    tc.save(teacher, "teacher.tcz")
    for name, more in {"alone": (), "taught": ("--teacher", "teacher.tcz")}.items():
        run("compress", model_file, *more, "-o", f"{name}.tcz", *FAST)
    alone, taught = (tc.load(f"{name}.tcz") for name in ("alone", "taught"))
    assert np.abs(alone.fc.bias.data - taught.fc.bias.data).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--sparsity", 1.0), "below 1"),
        (("--bits", 0), "--bits"),
        (("--bits", 16), "--bits"),
        (("--layer", "fc"), "LAYER=SHARE:BITS"),
        (("--layer", "fc="), "LAYER=SHARE:BITS"),
        (("--layer", "fc=half"), "LAYER=SHARE:BITS"),
        (("--layer", "fc=0.5:two"), "LAYER=SHARE:BITS"),
        (("--layer", "fc=1.5"), "below 1"),
        (("--layer", "fc=0.5", "--layer", "fc=0.9:2"), "given twice"),
        (("--layer", "fc9=0.5"), "no prunable layer 'fc9'"),
        (("--init", "middle"), "linear"),
        (("--lr", 0), "must be > 0"),
        (("--lr", "inf"), "finite"),
        (("--share-lr", 0), "--share-lr: the learning rate must be > 0"),
        (("--share-lr", "inf"), "--share-lr: the learning rate must be > 0 and finite, got inf"),
        (("--temperature", 0), "temperature"),
        (("--bias-bits", 12), "--bias-bits"),
        (("--bias-bits", 5, "--no-half"), "leave out --no-half"),
        (("--keep-zeros", "--sparsity", 0.5), "leave it out"),
        (("--keep-zeros", "--layer", "fc=0.5"), "leave out"),
        (("--keep-zeros", "--scope", "local"), "leave it out"),
        (("--keep-zeros", "--importance", "lamp"), "leave it out"),
        (("--importance", "taylor"), "lamp"),
    ],
)
def test_what_contradicts_itself_is_an_error_of_usage(options, word, misuse, model_file, tmp_path):
    assert word in misuse("compress", model_file, *options)
    assert not (tmp_path / "compressed.tcz").exists()


def test_a_teacher_needs_lessons(misuse, model_file):
    said = misuse("compress", model_file, "--teacher", model_file, *SHOT)
    assert "give --epochs" in said


def test_the_file_is_not_its_own_result(misuse, model_file):
    assert "made from" in misuse("compress", model_file, "-o", model_file)


def test_what_has_codes_is_refused_in_a_line(run, failure, model_file):
    run("compress", model_file, "-o", "c.tcz", *SHOT)
    assert "Shared" in failure("compress", "c.tcz", *SHOT)
