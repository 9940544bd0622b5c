"""The simulator of the device's time against the RTL: to the cycle on one channel of one die, and nearly so beyond."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nearflash import cache
from nearflash.compiler import compile_device
from nearflash.compiler.timing import DENSE, POOLED, inference_cycles
from nearflash.contract import DataError, DeviceConfig, RowFormat, TableSpec
from nearflash.contract.modelled import Modelled
from nearflash.contract.table import PoolMode
from nearflash.data import BlockLoad
from nearflash.models import ModelSpec, RecModel
from nearflash.quantize import QuantizeOptions, compile_model
from nearflash_sim.timing import simulator
from nearflash_sim.timing.loops import compiled as loops
from nearflash_sim.timing.loops.mlp import advance, arrive, new_mlp
from nearflash_sim.timing.loops.pipe import CONVERT, entered, passed, stalled
from nearflash_sim.timing.loops.state import new_state
from nearflash_sim.timing.rtl import Query, measure
from nearflash_sim.timing.simulator import Simulator, Timeline
from nearflash_sim.timing.workload import Batch, place

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("system", "hw/mlp")]

from device_bench import open_device, random_bags
from nearflash_sim.small.device import CACHED, SMALL, load, make_table, small_config
from nearflash_sim.small.models import CASES as MODELS
from nearflash_sim.small.models import configured
from test_device_models import compiled, queries
from test_inference_cycles import random_device

ONE_DIE = configured("serial-groups")
KINDS = ((50, 8, RowFormat.FP32, PoolMode.SUM), (33, 8, RowFormat.FP16, PoolMode.MEAN),
         (40, 8, RowFormat.INT8, PoolMode.SUM))


@pytest.fixture(scope="module")
def device():
    """With a table of each format."""
    with open_device(ONE_DIE) as opened:
        rng = np.random.default_rng(0)
        tables = [make_table(rng, ONE_DIE, *kind) for kind in KINDS]
        load(opened, tables, preload=True)
        opened.made = tables
        yield opened


#: (commands in flight, samples of a command, longest bag, commands): a lookup alone, short and empty bags, commands that
#: overlap, results of many chunks, more lookups than tags, more samples than slots.
CASES = [(depth, samples, bag, commands)
         for depth in (1, 2, 4)
         for samples, bag, commands in ((1, 8, 4), (2, 12, 4), (5, 20, 3), (16, 4, 3), (24, 9, 2), (3, 32, 3))]
CASES += [(1, 40, 1, 3)]  # samples of few lookups: each waits for the room that a drain makes


def both_lookups(device, depth: int, samples: int, bag: int, commands: int) -> tuple[Timeline, Timeline]:
    """Random LOOKUPs on the RTL and in the simulator; both start with an empty map cache."""
    device.driver.enable()
    rng = np.random.default_rng(samples * 100 + bag)
    queries = [random_bags(rng, device.made, samples, bag) for _ in range(commands)]
    rtl = measure(device, [Query(bags) for bags in queries], depth)
    specs = [t.spec for t in device.made]
    return rtl, Simulator(device.config, specs, depth).run(Batch.of(bags) for bags in queries)


def both_infers(device, spec: ModelSpec, depth: int, samples: int, commands: int = 5) -> tuple[Timeline, Timeline]:
    """The same with INFERs."""
    device.driver.enable()
    rng = np.random.default_rng(samples)
    given = [Query(bags, dense) for dense, bags in (queries(spec, samples, rng) for _ in range(commands))]
    rtl = measure(device, given, depth)
    tables = [device.tables[t] for t in range(len(spec.tables))]
    return rtl, Simulator(device.config, tables, depth).run(Batch.of(q.bags, True, spec.dense) for q in given)


@pytest.mark.parametrize(("depth", "samples", "bag", "commands"), CASES)
def test_no_cycle_off_on_one_die(device, depth, samples, bag, commands):
    """Submissions and completions of every command, and every counter; the map cache is empty at the start of both."""
    rtl, simulated = both_lookups(device, depth, samples, bag, commands)
    assert simulated.submitted.tolist() == rtl.submitted.tolist()
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}


@pytest.fixture(scope="module")
def model_device():
    """One die again, with a decomposed and composed MLP behind tables of each format."""
    case = MODELS["cat"]
    config = compile_device(case.spec, small_config("cat", 1, 1), case.plan)
    rng = np.random.default_rng(0)
    model = compile_model(RecModel(case.spec, seed=0), config, [queries(case.spec, 32, rng)], QuantizeOptions())
    with open_device(config) as opened:
        opened.load(model, preload=True)
        yield opened, case.spec


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("samples", [1, 3, 9])
def test_no_cycle_off_with_an_mlp(model_device, depth, samples):
    device, spec = model_device
    rtl, simulated = both_infers(device, spec, depth, samples)
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}


@pytest.fixture(scope="module")
def device_of_groups():
    """The one die once more, with its own MLP: groups of two samples and a buffer for one."""
    _, model = compiled("serial-groups")
    with open_device(ONE_DIE) as opened:
        opened.load(model, preload=True)
        yield opened


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("samples", [1, 3, 9])
def test_no_cycle_off_with_groups_of_samples(device_of_groups, depth, samples):
    """Odd numbers of samples: a command's last group is a smaller one."""
    rtl, simulated = both_infers(device_of_groups, MODELS["serial-groups"].spec, depth, samples)
    assert simulated.completed.tolist() == rtl.completed.tolist()
    assert simulated.counters == {name: rtl.counters[name] for name in simulated.counters}


def close(simulated: Timeline, rtl: Timeline, share: float) -> bool:
    """Every command is complete within that share of the cycles it took to get there."""
    return bool((np.abs(simulated.completed - rtl.completed) <= share * rtl.completed).all())


@pytest.fixture(scope="module")
def small_device():
    """Two channels of two dies, and a table of each format."""
    with open_device(SMALL) as opened:
        rng = np.random.default_rng(0)
        opened.made = [make_table(rng, SMALL, *kind) for kind in KINDS]
        load(opened, opened.made, preload=True)
        yield opened


@pytest.mark.parametrize(("depth", "samples", "bag"), [(1, 16, 4), (2, 40, 1), (4, 24, 9), (4, 1, 8), (2, 5, 20)])
def test_lookups_on_several_channels_and_dies(small_device, depth, samples, bag):
    rtl, simulated = both_lookups(small_device, depth, samples, bag, 3)
    assert close(simulated, rtl, 0.001)
    assert all(simulated.counters[k] == rtl.counters[k] for k in simulated.counters if "reads" in k or "misses" in k)


@pytest.fixture(scope="module")
def cached_device():
    """The same with a row cache."""
    with open_device(CACHED) as opened:
        rng = np.random.default_rng(0)
        opened.made = [make_table(rng, CACHED, *kind) for kind in KINDS]
        load(opened, opened.made, preload=True)
        yield opened


@pytest.mark.parametrize(("depth", "samples", "bag", "commands"),
                         [(1, 16, 4, 6), (2, 40, 1, 6), (4, 24, 9, 6), (2, 5, 20, 8)])
def test_lookups_with_a_row_cache(cached_device, depth, samples, bag, commands):
    """Also what was found, kept, and dropped because the writer was busy. Rows are published after the last command, too."""
    rtl, simulated = both_lookups(cached_device, depth, samples, bag, commands)
    assert close(simulated, rtl, 0.001)
    assert all(simulated.counters[k] == rtl.counters[k] for k in simulated.counters
               if "reads" in k or "misses" in k or k == "cache_hits_count")
    assert abs(simulated.counters["cache_dropped_count"] - rtl.counters["cache_dropped_count"]) <= 1
    assert rtl.counters["cache_kept_count"] - 2 <= simulated.counters["cache_kept_count"] <= rtl.counters["cache_kept_count"]
    assert rtl.counters["cache_hits_count"] > 100


#: A model's device, and the share of its cycles within which each command ends. The last two stream weights, neumf-dram
#: those of five layers; its commands take 400 cycles.
ON_SEVERAL_DIES = (("cat", 0.001), ("dot16", 0.001), ("neumf-dram", 0.001), ("wide-groups", 0.001))


@pytest.fixture(scope="module", params=ON_SEVERAL_DIES, ids=lambda p: p[0])
def models_on_several_dies(request):
    """Two channels of two dies, or four of one; features and rows wait for a buffer of the MLP."""
    name, share = request.param
    _, model = compiled(name)
    with open_device(configured(name)) as opened:
        opened.load(model, preload=True)
        yield opened, MODELS[name].spec, share


@pytest.mark.parametrize(("depth", "samples"), [(1, 9), (2, 20), (4, 3)])
def test_inferences_on_several_channels_and_dies(models_on_several_dies, depth, samples):
    device, spec, share = models_on_several_dies
    rtl, simulated = both_infers(device, spec, depth, samples, commands=3)
    assert close(simulated, rtl, share)
    assert abs(simulated.completed[-1] - rtl.completed[-1]) <= 0.001 * rtl.completed[-1]


@pytest.mark.parametrize("known", [False, True])
def test_one_process_compiles_the_loops(known, tmp_path, monkeypatch):
    """Whoever calls them first in a process has the lock meanwhile; whoever has them already needs none."""
    lock, held = tmp_path / "loops.lock", []

    class Loops:
        signatures = [()] if known else []

        def __call__(self, *arguments):
            held.append(lock.exists())
            if lock.exists():
                with pytest.raises(BlockingIOError), cache._locked(lock, wait=False):
                    pass
            return 0

    monkeypatch.setattr(loops, "_FOLDER", lock.with_suffix(""))
    monkeypatch.setattr(simulator, "run", Loops())
    Simulator(SMALL, []).wait(0)
    assert held == [not known]


def pipeline(entries: list[int], ready: list[int], stages: int) -> tuple[list[int], list[int]]:
    """A rigid pipeline cycle by cycle: element ``n`` is offered from ``entries[n]`` on, and may leave from ``ready[n]`` on.
    When each entered, and left."""
    places: list[int | None] = [None] * stages
    entered, left, cycle = [], [], 0
    while len(left) < len(entries):
        out = places[-1]
        if out is None or cycle >= ready[out]:
            if out is not None:
                left.append(cycle)
            places = [None, *places[:-1]]
            if len(entered) < len(entries) and cycle >= entries[len(entered)]:
                places[0] = len(entered)
                entered.append(cycle)
        cycle += 1
    return entered, left


@pytest.mark.parametrize("seed", range(6))
def test_a_pipeline_that_stands_still_as_a_whole(seed):
    """In closed form it is what it is cycle by cycle: elements that come close and apart, and wait at the end or don't."""
    rng = np.random.default_rng(seed)
    n = 300
    entries = np.cumsum(rng.integers(1, (2, 4, 30)[seed % 3], n))
    ready = np.where(rng.random(n) < 0.3, entries + rng.integers(0, 60, n), 0)
    want = pipeline(entries.tolist(), ready.tolist(), 7)
    a = new_state(ONE_DIE, [], Modelled(), BlockLoad.none())
    a = a._replace(pipe=a.pipe.view(np.recarray))  # as the compiled loops see it
    at, entered_at, left_at = -1, [], []
    for offered, from_then_on in zip(entries.tolist(), ready.tolist(), strict=True):
        at = entered.py_func(a, CONVERT, max(offered, at + 1))
        here = passed.py_func(a, CONVERT, at, 7)
        left = max(here, from_then_on)
        stalled.py_func(a, CONVERT, here, left)
        entered_at.append(at)
        left_at.append(left)
    assert (entered_at, left_at) == want


@pytest.mark.parametrize("seed", range(8))
def test_one_sample_in_an_idle_engine_takes_the_planners_cycles(seed):
    """The planner's closed form is the simulator's first sample; what comes later, as late as it likes, takes as long."""
    config, dims = random_device(seed)
    config = replace(config, mlp=replace(config.mlp, n_batch=1))
    want = inference_cycles(config, dims)
    dense = next((n.width for n in config.mlp.graph if n.kind == "dense"), 0)
    owner = {t: k for k, n in enumerate(config.mlp.graph) if n.kind == "tables" for t in n.tables}
    order = sorted(owner)
    starts = np.cumsum([0, *(dims[t] for t in order)])
    engine = new_mlp(config)
    engine.samples[:] = 1
    for begin in (0, 100_000, 107_000):
        entered = {t: begin + starts[i] + np.arange(dims[t]) + POOLED for i, t in enumerate(order)}
        for k, n in enumerate(config.mlp.graph):
            if n.kind == "dense":
                arrive(engine, k, begin + np.arange(dense) + DENSE, 0)
            elif n.kind == "tables":
                arrive(engine, k, np.concatenate([entered[t] for t in n.tables]), 0)
        assert advance(engine) - begin == want.last_logit


def test_a_core_works_on_the_features_before_the_vectors_are_in():
    """When it lets go of them is known then (more of them wait for that), and is what it is when all comes at once."""
    config, dims = configured("cat"), [t.dim for t in MODELS["cat"].spec.tables]
    graph = config.mlp.graph
    top = next(k for k, n in enumerate(graph) if n.decomposed)
    dense, tables = (next(i for i, n in enumerate(graph) if n.kind == kind) for kind in ("dense", "tables"))
    late, whole = new_mlp(config), new_mlp(config)
    features = np.arange(graph[dense].width) + 50
    vectors = np.arange(sum(dims)) + 5000
    for engine in (late, whole):
        engine.samples[:] = 1
        arrive(engine, dense, features, 0)
    advance(late)
    of_features, of_vectors = late.node[top]["unit"] + np.arange(2)  # a core for each of its inputs
    assert (late.unit[of_features]["released"], late.unit[of_vectors]["released"]) == (1, 0)
    known = int(late.release[of_features, 0])
    assert 50 < known < 5000
    ends = []
    for engine in (late, whole):
        arrive(engine, tables, vectors, 0)
        ends.append(advance(engine))
    assert known == late.release[of_features, 0] == whole.release[of_features, 0]
    assert ends[0] == ends[1] > 5000


def mqsim() -> tuple[DeviceConfig, list[TableSpec]]:
    """MQSim's flash, and a table whose rows are 4 KB."""
    config = DeviceConfig.preset("mqsim")
    return config, place(config, [TableSpec(64, 1024)])


def test_a_4_kb_read_takes_mqsims_time():
    """MQSim at queue depth 1: command 290 ns, tR 75 us, set-up 30 ns, 4096 B at two bytes in 6 ns: 87.6 us."""
    config, tables = mqsim()
    counters = Simulator(config, tables).run([Batch.of([(np.array([5]), np.array([0]))])]).counters
    busy = sum(cycles for name, cycles in counters.items() if "die" in name)
    assert busy / config.clock_mhz == pytest.approx(0.290 + 75 + 0.030 + 4096 / 2 * 0.006, abs=0.1)


def test_chunks_of_commands_change_nothing(monkeypatch):
    config, tables = mqsim()
    rng = np.random.default_rng(2)
    batches = [Batch.of([(rng.integers(0, 64, 6), np.array([0, 2]))]) for _ in range(9)]
    whole = Simulator(config, tables, 3).run(batches)
    monkeypatch.setattr("nearflash_sim.timing.simulator.CHUNK", 2)
    parts = Simulator(config, tables, 3).run(batches)
    assert parts.completed.tolist() == whole.completed.tolist()
    assert len(set(whole.completed)) > 3
    assert parts.counters == whole.counters


def bag(rows: list[int]) -> Batch:
    return Batch.of([(np.array(rows), np.array([0]))])


def test_what_the_device_would_refuse_is_refused():
    config, tables = mqsim()
    with pytest.raises(DataError, match=r"depth.*host\.infer_depth"):
        Simulator(config, tables, 99)
    with pytest.raises(DataError, match="host_latency"):
        Simulator(config, tables, host_latency=0)
    simulator = Simulator(config, tables)
    with pytest.raises(DataError, match=r"bags\[0\]\.indices = 64.*0 to 63"):
        simulator.run([bag([1, 64])])
    with pytest.raises(DataError, match=r"bags\[0\] = 5000.*at most 4096"):
        simulator.run([bag([1] * 5000)])
    with pytest.raises(DataError, match="the tables there are"):
        simulator.run([Batch.of([(np.array([1]), np.array([0]))] * 2)])
    with pytest.raises(DataError, match="model's"):
        simulator.run([Batch.of([(np.array([1]), np.array([0]))], infer=True)])
    with pytest.raises(DataError, match="extents"):
        place(config, [TableSpec(1 << 30, 1024)])
