"""The benchmarks measure what they say; how fast anything is, no test asks."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # benchmarks/ is not part of the package
    sys.path.append(str(ROOT))

import tinycompress as tc  # noqa: E402
from benchmarks import (  # noqa: E402
    contenders,
    idioms,
    machine,
    memory,
    ours,
    problems,
    rounds,
    rules,
    run,
    servers,
    tables,
    time_to_accuracy,
)
from benchmarks.networks import NETWORKS  # noqa: E402
from benchmarks.peers.contender import cores  # noqa: E402
from benchmarks.recipe import Recipe  # noqa: E402
from tinycompress import nn, optim  # noqa: E402
from tinycompress.data import Dataset  # noqa: E402
from tinycompress.train import Workers  # noqa: E402

HEADER = ("name", "what", "command", "commit", "date", "machine", "versions")
PROGRAMS = ("run", "time_to_accuracy", "memory", "rules", "idioms", "tables")


# ------------------------------------------------------------------------------- paired rounds


def test_the_spread_is_median_and_quartiles():
    assert rounds.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == (3.0, 2.0, 4.0)
    assert rounds.spread([7.0]) == (7.0, 7.0, 7.0)


def test_a_ratio_is_taken_within_a_round_so_drift_cancels():
    """The machine slows down tenfold; b takes one and a half times as long as a all the while."""
    drifting = [{"a": 0.1 * 1.3**k, "b": 0.15 * 1.3**k} for k in range(10)]
    assert rounds.ratio(drifting, "a", "b") == pytest.approx((1.5, 1.5, 1.5))
    assert rounds.ratio(drifting, "b", "a").median == pytest.approx(2 / 3)


def test_images_per_second_counts_the_batch():
    assert rounds.images_per_second([{"a": 0.5}], "a", 128).median == 256


def test_everyone_has_one_turn_a_round_and_the_first_turn_moves_on():
    order = []

    def contender(name):
        return lambda: order.append(name) or float(len(order))

    kept = rounds.take_turns({name: contender(name) for name in "abc"}, rounds=3)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert len(kept) == 3  # the first round warms up
    assert kept[0] == {"a": 6.0, "b": 4.0, "c": 5.0}
    assert list(kept[0]) == ["a", "b", "c"]


def test_a_turn_is_the_median_of_its_steps_after_warming_up(monkeypatch):
    clock = iter([0, 9, 0, 9, 0, 1, 0, 5, 0, 2])  # two to warm up take 9, then 1, 5 and 2
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: next(clock))
    assert rounds.median_seconds(lambda: None, steps=3, warm_up=2) == 2


def test_slow_steps_are_fewer(monkeypatch):
    calls, clock = [], iter(range(1000))  # every call takes a second
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: next(clock))

    def count(**options):
        calls.clear()
        rounds.median_seconds(lambda: calls.append(0), **options)
        return len(calls)

    assert count(steps=25, warm_up=0, budget=4) == 4
    assert count(steps=25, warm_up=0, budget=1) == 3
    assert count(steps=25, warm_up=0, least=1, budget=0) == 1
    assert count(steps=25, warm_up=5, budget=0) == 1 + 3
    assert count(steps=2, warm_up=0, budget=9) == 2


# ------------------------------------------------------------------------------ results, tables

ROUNDS = [
    {"tinycompress": 0.010, "torch default": 0.020},
    {"tinycompress": 0.012, "torch default": 0.018},
    {"tinycompress": 0.011, "torch default": 0.022},
]


def test_a_measurement_keeps_the_raw_rounds_and_what_they_come_to():
    measured = run.summarize(ROUNDS, "train", 128)
    assert measured["seconds_per_batch"] == ROUNDS
    assert measured["images_per_second"]["tinycompress"]["median"] == pytest.approx(128 / 0.011)
    assert measured["ratio_of_tinycompress"]["torch default"]["median"] == pytest.approx(2.0)
    assert "tinycompress" not in measured["ratio_of_tinycompress"]


def test_a_result_says_where_it_comes_from(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/x/run.py", "--data-dir", "/home/me/mnist", "--rounds", "3"])
    result = machine.report("W", "a network", {"measurements": [run.summarize(ROUNDS, "train", 8)]})
    path = machine.write(tmp_path / "new", result)
    read = json.loads(path.read_text())
    assert path.name == "W.json"
    assert set(HEADER) < set(read)
    assert read["command"] == "python -m benchmarks --data-dir FOLDER --rounds 3"
    assert len(read["commit"]) >= 7
    assert read["machine"]["cores"] == cores()
    assert read["versions"]["numpy"] == np.__version__
    assert machine.write(None, result) is None


def test_a_result_that_is_not_a_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        machine.write(tmp_path, {"name": "W", "loss": float("nan")})


def test_tables_show_the_figure_and_the_ratio():
    measured = [run.summarize(ROUNDS, "train", batch) for batch in (64, 128)]
    text = tables.markdown("train", measured)
    assert text.splitlines()[0] == "|  | batch 64 | batch 128 |"
    assert "| tinycompress | 5,818 | 11,636 |" in text
    assert "| torch default | 3,200  2.00 (1.75–2.00) | 6,400  2.00 (1.75–2.00) |" in text
    assert tables.figure("latency", 1, 4000) == "0.250"
    assert tables.table("W", "train", measured).row_count == 2


@pytest.mark.parametrize("path", sorted(ROOT.glob("results/speed/*.json")), ids=lambda p: p.stem)
def test_a_committed_result_has_its_header_and_names_no_folder(path):
    text = path.read_text("utf-8")
    assert set(HEADER) < set(json.loads(text))
    assert "/tmp" not in text
    assert "/home" not in text


def test_the_recipe_is_the_best_of_the_sweep():
    path = ROOT / "results" / "speed" / "recipe.json"
    if not path.exists():
        pytest.skip("no sweep has been committed")
    best = json.loads(path.read_text("utf-8"))["sweep"][0]["recipe"]
    assert Recipe(**best) == time_to_accuracy.RECIPE


# ----------------------------------------------------------------------- the same computation


def test_a_problem_comes_back_from_its_file(tmp_path):
    weights = run.initial_weights("lenet-5")
    problem = problems.problem_of("lenet-5", weights, 3)
    read = problems.read_problem(problems.write_problem(tmp_path / "p.npz", problem))
    assert read.workload == "lenet-5"
    assert read.weights.keys() == weights.keys()
    np.testing.assert_array_equal(read.weights["fc1.weight"], weights["fc1.weight"])
    np.testing.assert_array_equal(read.images, problem.images)
    assert len(read.many_images(25)) == 2049  # 683 batches of 3: at least PASS images


def test_differences_are_relative_and_the_worst_gradient_counts(tmp_path):
    a, b = tmp_path / "a.npz", tmp_path / "b.npz"
    outputs, w = np.ones((2, 10), np.float32), np.full(4, 2.0)
    problems.write_results(a, outputs, 1.0, {"w": w, "v": w})
    problems.write_results(b, outputs, 2.0, {"w": w, "v": 2 * w})
    found = problems.differences(a, b)
    assert found == pytest.approx({"outputs": 0.0, "loss": 0.5, "gradient": 0.5})
    problems.write_results(b, outputs)
    assert problems.differences(b, a) == {"outputs": 0.0}


@pytest.mark.torch
@pytest.mark.parametrize("workload", NETWORKS)
def test_both_libraries_build_the_same_network(workload):
    torch = pytest.importorskip("torch")
    a, b = NETWORKS[workload](nn), NETWORKS[workload](torch.nn)
    theirs = {name: tuple(p.shape) for name, p in b.named_parameters()}
    assert {name: p.shape for name, p in a.named_parameters()} == theirs


@pytest.mark.parametrize(
    ("workload", "rival"),
    [
        ("W", "tinycompress, unfused"),
        *(pytest.param(name, "torch channels_last", marks=pytest.mark.torch) for name in NETWORKS),
    ],
)
def test_contenders_agree_before_they_are_timed(workload, rival):
    if "torch" in rival:
        pytest.importorskip("torch")
    names = ("tinycompress", rival)
    entries = {name: contenders.CONTENDERS[name] for name in names}
    with contenders.Field(entries, workload, run.initial_weights(workload), 8) as field:
        assert set(field.checks) == {rival}
        assert set(field.checks[rival]) == {"loss", "outputs", "gradient"}
        for task in ("train", "infer", "latency"):
            kept = rounds.take_turns(field.turns(task, "2", names), rounds=1, warm_up=0)
            assert all(seconds > 0 for seconds in kept[0].values())
    assert all(server.process.poll() == 0 for server in field.servers.values())


@pytest.mark.torch
def test_a_contender_that_computes_something_else_is_refused(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(contenders, "TOLERANCE", {"loss": -1, "outputs": 1, "gradient": 1})
    entries = {name: contenders.CONTENDERS[name] for name in ("tinycompress", "torch default")}
    with (
        pytest.raises(contenders.Disagreement, match="torch default does not compute"),
        contenders.Field(entries, "W", run.initial_weights("W"), 2),
    ):
        pass


# -------------------------------------------------------------------------------- contenders


@pytest.fixture
def problem(tmp_path):
    return problems.problem_of("W", run.initial_weights("W"), 4)


def test_ours_is_timed_between_the_ends_of_steps_of_fit(problem, monkeypatch):
    monkeypatch.setattr(ours, "EPOCH", 16)  # four batches: an epoch ends on the way
    seen = []
    monkeypatch.setattr(ours.StepClock, "median", lambda clock: seen.append(clock.stamps) or 1.0)
    with Workers(1) as team:
        ours.Ours(problem, ours.parse(["p.npz"]), team).train("5")
    assert len(seen[0]) == ours.WARM_UP + 5 + 1
    assert sorted(seen[0]) == seen[0]


def test_a_constant_of_the_engine_can_be_changed_and_must_exist(monkeypatch):
    monkeypatch.setattr(optim.flat, "BLOCK_BYTES", optim.flat.BLOCK_BYTES)
    ours.set_constants(["tinycompress.optim.flat:BLOCK_BYTES=1024"])
    assert optim.flat.BLOCK_BYTES == 1024
    with pytest.raises(AttributeError, match="NO_SUCH"):
        ours.set_constants(["tinycompress.optim.flat:NO_SUCH=1"])


def test_a_framework_that_is_not_there_is_missing(monkeypatch):
    with (
        servers.Server("benchmarks.no_such_peer") as server,
        pytest.raises(RuntimeError, match="no_such_peer"),
    ):
        server.ready()
    code = "import no_such_framework"
    monkeypatch.setattr(servers.subprocess, "Popen", _python(code))
    with servers.Server("x") as server, pytest.raises(servers.Missing, match="no_such_framework"):
        server.ready()


def test_an_error_on_the_other_side_is_told_and_the_server_ends(monkeypatch):
    code = (
        "from benchmarks.servers import serve\n"
        "serve({'x': '1'}, {'double': lambda n: 2 * int(n), 'noise': lambda n: print('hello')})"
    )
    monkeypatch.setattr(servers.subprocess, "Popen", _python(code))
    with servers.Server("x") as server:
        assert server.ready().versions == {"x": "1"}
        assert server.ask("double", 21) == 42
        assert server.ask("noise") is None  # what it prints is no answer
        with pytest.raises(RuntimeError, match="ValueError: invalid literal"):
            server.ask("double", "x")
        assert server.ask("double", 4) == 8
    assert server.process.poll() == 0


def _python(code):
    """``subprocess.Popen``, but it runs ``code``."""
    popen = subprocess.Popen
    return lambda command, **options: popen([command[0], "-c", code], **options)


def test_torch_gets_the_allocator_settings_only_where_told(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given = {}
    code = "from benchmarks.servers import serve; serve({}, {})"

    def popen(command, env, **options):
        given.update(env)
        return subprocess_popen([command[0], "-c", code], env=env, **options)

    subprocess_popen = subprocess.Popen
    monkeypatch.setattr(servers.subprocess, "Popen", popen)
    with servers.Server("x") as server:
        server.ready()
    assert not {"MALLOC_TOP_PAD_", "OMP_NUM_THREADS"} & set(given)
    with servers.Server("x", environment=servers.TUNED_MALLOC) as server:
        server.ready()
    assert given["MALLOC_TOP_PAD_"] == str(64 << 20)


def test_the_residual_network_learns():
    model, rng = NETWORKS["residual"](nn), np.random.default_rng(0)
    data = Dataset(rng.random((32, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 32))
    sgd = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    history = tc.fit(model, data, epochs=5, optimizer=sgd, batch_size=32, workers=1)
    assert history[-1].loss < history[0].loss
    assert tc.train.predict(model, data.images).shape == (32, 10)


# ----------------------------------------------------------------------------- the other programs


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_explains_itself(program, capsys):
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{program}").main(["--help"])
    assert end.value.code == 0
    assert "usage: python -m benchmarks" in capsys.readouterr().out


def test_the_quick_look_is_small_and_writes_nothing():
    options = run.parse(["--quick"])
    assert (options.only, options.rounds, options.out) == (["W"], 3, None)
    whole = run.parse([])
    assert whole.only == ["W", "lenet-5", "residual", "peers"]
    assert (whole.batches, whole.rounds, whole.steps) == ([1, 32, 128, 512], 9, 25)


def test_senseless_numbers_are_refused(capsys):
    with pytest.raises(SystemExit):
        run.parse(["--batches", "0"])
    assert "must be at least 1" in capsys.readouterr().err


def test_everybody_takes_part_at_128_and_the_headline_always():
    assert set(run.entries_for(128, False)) == set(contenders.CONTENDERS)
    few = run.entries_for(1, False)
    assert set(few) < set(contenders.CONTENDERS)
    assert set(run.entries_for(1, True)) == set(contenders.CONTENDERS)
    assert contenders.OURS in few


@pytest.mark.parametrize("idiom", idioms.all_idioms(), ids=lambda idiom: idiom.name)
def test_both_ways_of_an_idiom_give_the_same(idiom):
    assert idioms.agree(idiom)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_counts_a_process_and_its_children():
    code = "import sys; x = bytearray(50_000_000); print(len(x), flush=True); sys.stdin.read()"
    before = memory.usage(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        assert child.pid in memory.descendants(os.getpid())
        with memory.Watch(os.getpid()) as watch:
            pass
        child.stdin.close()
    assert watch.most.children - before.children > 50e6
    assert watch.most.pss - before.pss > 50e6
    assert watch.most.high >= before.high > 10e6
    assert memory.usage(child.pid) == memory.Usage(processes=1)


@pytest.mark.parametrize("variant", rules.VARIANTS, ids=lambda variant: variant.name)
def test_what_a_variant_changes_is_there(variant):
    options = ours.parse(["problem.npz", *variant.arguments])
    assert variant.arguments or variant.environment
    for assignment in options.set:
        module, _, name = assignment.partition("=")[0].partition(":")
        assert hasattr(importlib.import_module(module), name)


def test_a_recipe_counts_its_steps():
    assert Recipe(epochs=2, batch=128, max_lr=0.1).steps(60_000) == 2 * 469
