"""The kernel search: exact over its cost model, each of its rules kept, and clear when nothing fits."""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from nearflash.cli.fit import fit_board
from nearflash.compiler import embedding_cycles, stage_cycles
from nearflash.compiler.balance import balance, slots_for
from nearflash.compiler.fit import FitOptions, NothingFits, fit, to_records
from nearflash.compiler.formats import least_formats
from nearflash.compiler.plan import kernels_of
from nearflash.compiler.soft import with_lut_rows
from nearflash.contract import BOARDS, ConfigError, DeviceConfig, ModelError, Node, cores
from nearflash.contract.boards import find_board
from nearflash.contract.mlp import SCANS, output_lanes
from nearflash.contract.resources import Resources
from nearflash.models import ModelSpec, RecModel, TableShape, model_spec

Z020 = BOARDS["pynq-z2"]
PAPER = DeviceConfig.preset("paper")


REST = Resources(lut=20_000, ff=10_000, bram18=100)


@dataclass
class Costs:
    """A cost model with round figures: a multiplier is a DSP slice and 40 LUTs, a lane of an epilogue two slices and 150
    LUTs; the rest of the device is ``rest``."""

    rest: Resources = REST

    def device(self, config):
        return {"": self.rest}

    def shell(self, config, board):
        return Resources()

    def core(self, core, mlp, beat_bytes, lanes, hold):
        n = core.kr * core.kc
        bits = core.rows * core.columns * core.weight_bits if core.weights == "onchip" else 0
        return Resources(lut=100 + 40 * n, ff=80 * n, bram18=-(-bits // 18432), dsp=(n + 1) // 2 if mlp.packed else n)

    def core_floor(self, core, mlp, beat_bytes):
        return Resources(dsp=self.core(core, mlp, beat_bytes, 1, False).dsp)

    def epilogue_floor(self, node, node_cores, mlp, last):
        return Resources(dsp=2)

    def epilogue(self, node, node_cores, mlp, last):
        lanes = output_lanes(node, node_cores, last)
        return Resources(lut=150 * lanes, ff=100 * lanes, dsp=2 * lanes)


COSTS = Costs()
THREE_QUARTERS = FitOptions(share=0.5, limit=0.75)
SMALL = ModelSpec("small", (TableShape(500, 16, 4), TableShape(500, 16, 4)), dense=32, bottom=(32, 16), top=(32, 16, 1))


def every_way(node, shapes, mlp, last):
    """(cycles, cost) of a node with every combination of kernels of up to 16 multipliers and of lanes."""
    options = [[k for choice in kernels_of(c, 16) if choice.cost <= 16 for k in choice.kernels.values()] for c in shapes]
    for kernels in itertools.product(*options):
        sized = [replace(c, kr=kr, kc=kc) for c, (kr, kc) in zip(shapes, kernels, strict=True)]
        steps = max(c.steps for c in sized)
        usual = output_lanes(node, sized, last)
        for lanes in (usual, *(n for n in (1, 2, 4) if n < usual and node.scan == "column" and n * steps >= node.width)):
            chosen = node if lanes == usual else replace(node, lanes=lanes)
            total = COSTS.epilogue(chosen, sized, mlp, last)
            total += sum((COSTS.core(c, mlp, 16, lanes, False) for c in sized), Resources())
            yield steps + -(-node.width // lanes) - -(-node.width // usual), sum(total.shares(Z020.part).values())


def by_hand(graph, mlp, limit):
    """Least cost of the layers, over every combination of scan orders, kernels and lanes, by trying them all."""
    total = 0
    for stage in ("bot", "top"):
        chain = [n for n in graph if n.name.startswith(stage)]
        best = None
        for scans in itertools.product(SCANS, repeat=len(chain)):
            ways = []
            for node, scan in zip(chain, scans, strict=True):
                plain = replace(node, scan=scan, lanes=0)
                shapes = [replace(c, scan=scan) for c in cores(graph) if c.node == node.name]
                ways.append(set(every_way(plain, shapes, mlp, node is graph[-1])))
            for some in itertools.product(*ways):
                time, i = 0, 0
                while i < len(some):  # a row scan and a column scan behind it run at the same time
                    overlap = scans[i : i + 2] == ("row", "column")
                    time += max(some[i][0], some[i + 1][0]) if overlap else some[i][0]
                    i += 1 + overlap
                if time <= limit and (best is None or sum(c for _, c in some) < best):
                    best = sum(c for _, c in some)
        total += best
    return total


@pytest.mark.parametrize("share", [0.5, 0.05, 0.02])
def test_no_combination_of_kernels_is_cheaper(share):
    mlp = fit(SMALL, PAPER, Z020, COSTS, FitOptions(share=share)).config.mlp
    graph, got = mlp.graph, Resources()
    for node in graph:
        shapes = [c for c in cores(graph) if c.node == node.name]
        if shapes:
            lanes = output_lanes(node, shapes, node is graph[-1])
            got += COSTS.epilogue(node, shapes, mlp, node is graph[-1])
            got += sum((COSTS.core(c, mlp, 16, lanes, False) for c in shapes), Resources())
    limit = int(embedding_cycles(SMALL, replace(PAPER, mlp=mlp)) * share)
    assert sum(got.shares(Z020.part).values()) == pytest.approx(by_hand(graph, mlp, limit))


@pytest.mark.parametrize("name", ["rmc1", "rmc2", "rmc3"])
def test_stages_hide_behind_the_lookups(name):
    found = fit(model_spec(name, 1000), PAPER, Z020, Costs(), FitOptions(share=0.2, limit=1.0))
    graph = found.config.mlp.graph
    assert found.allowed == int(embedding_cycles(model_spec(name, 1000), PAPER) * 0.2)
    assert max(stage_cycles(graph, "bot"), stage_cycles(graph, "top"), found.stream) <= found.allowed
    assert (found.bottom, found.top) == (stage_cycles(graph, "bot"), stage_cycles(graph, "top"))
    assert found.queries_per_second == pytest.approx(200e6 / found.embedding * found.balance)


def test_the_fewest_bytes_are_streamed_that_make_the_rest_fit():
    # 210 of the 280 RAMB18 may be used; the rest of the device has 100, RMC2's layers 15, 15, 116 and 4 of 8-bit weights
    found = fit(model_spec("rmc2", 1000), PAPER, Z020, Costs(), THREE_QUARTERS)
    streamed = {c.node for c in cores(found.config.mlp.graph) if c.weights == "dram"}
    assert streamed == {"top0"}
    assert found.stream <= found.allowed
    roomy = fit(model_spec("rmc2", 1000), PAPER, BOARDS["zcu104"], Costs(), FitOptions(share=0.5))
    assert {c.weights for c in cores(roomy.config.mlp.graph)} == {"onchip"}


def test_a_group_shares_streamed_weights_until_they_keep_up():
    # NCF does 4 lookups a sample: one pass over its layers' weights takes longer than those
    found = fit(model_spec("ncf", 1000), PAPER, Z020, Costs(Resources(bram18=200)), FitOptions(share=0.5, limit=0.8))
    n = found.config.mlp.n_batch
    assert n > 1
    assert found.stream <= found.allowed < 2 * found.stream
    assert found.config.lookup.sample_slots >= n


class ShellCosts(Costs):
    """A board puts 600 LUTs around the device."""

    def shell(self, config, board):
        assert board is Z020
        return Resources(lut=600)


def test_the_shell_counts_as_used():
    bare = fit(SMALL, PAPER, Z020, COSTS)
    found = fit(SMALL, PAPER, Z020, ShellCosts())
    assert found.total.lut == bare.total.lut + 600
    assert found.resources["shell"] == Resources(lut=600)
    used = found.total.lut + sum(layer.resources.lut for layer in found.layers)  # a device of Costs is without layers
    full = FitOptions(limit=(used - 300) / Z020.part.lut)  # the device alone would fit
    assert fit(SMALL, PAPER, Z020, COSTS, full).config == bare.config
    with pytest.raises(NothingFits, match="lut"):
        fit(SMALL, PAPER, Z020, ShellCosts(), full)


FAST = ModelSpec("fast", (TableShape(500, 16, 1), TableShape(500, 16, 1)), dense=64, bottom=(128, 32), top=(128, 64, 1))


def test_mlps_set_the_pace_where_nothing_else_fits(monkeypatch):
    """On as many slices as a pace of 1.5 takes: nothing fits at less, and `slower` says how far to go."""
    monkeypatch.setattr("nearflash.cli.fit.load_tool", lambda name: lambda family: COSTS)
    options = FitOptions(limit=1.0, packed=False)
    plans = {share: fit_board(FAST, Z020, replace(options, share=share), slower=1) for share in (1.3, 1.5)}
    taken = {share: sum(layer.resources.dsp for layer in plan.layers) for share, plan in plans.items()}
    assert taken[1.5] < taken[1.3]
    scarce = replace(Z020, part=replace(Z020.part, dsp=taken[1.5]))
    with pytest.raises(NothingFits, match=r"with 1\.3 of the lookups' time.*--slower"):
        fit_board(FAST, scarce, options, slower=1.3)
    found = fit_board(FAST, scarce, options, slower=2)
    assert 1.3 < max(found.bottom, found.top) / found.embedding <= 1.5
    assert found.queries_per_second == pytest.approx(Z020.clock_mhz * 1e6 / max(found.bottom, found.top))
    with pytest.raises(ModelError, match="share"):
        FitOptions(share=4.5)


class HeldCosts(Costs):
    """A core that holds a group's results needs ten block RAMs for them."""

    def core(self, core, mlp, beat_bytes, lanes, hold):
        return super().core(core, mlp, beat_bytes, lanes, hold) + Resources(bram18=10 if hold else 0)


@pytest.mark.parametrize(("taken", "decomposed"), [(130, True), (150, False)])
def test_a_layer_is_not_divided_where_its_halves_results_are_too_much(taken, decomposed):
    # 210 of the 280 RAMB18 may be used; the layers' weights take few, the two halves' results 20
    found = fit(model_spec("rmc1", 1000), PAPER, Z020, HeldCosts(Resources(bram18=taken)), THREE_QUARTERS)
    assert [n.decomposed for n in found.config.mlp.graph if n.name == "top0"] == [decomposed]
    assert found.total.bram18 <= 210
    assert {c.weights for c in cores(found.config.mlp.graph)} == {"onchip"}


class HeldSlices(Costs):
    """A core that holds a group's results needs ten DSP slices more."""

    def core(self, core, mlp, beat_bytes, lanes, hold):
        return super().core(core, mlp, beat_bytes, lanes, hold) + Resources(dsp=10 if hold else 0)


def test_a_layer_is_not_divided_where_slices_are_short():
    spec, options, costs = model_spec("rmc1", 1000), replace(THREE_QUARTERS, packed=False), HeldSlices()
    rich = fit(spec, PAPER, Z020, costs, options)
    used = sum(layer.resources.dsp for layer in rich.layers)
    found = fit(spec, PAPER, replace(Z020, part=replace(Z020.part, dsp=int((used - 1) / options.limit))), costs, options)
    divided = [[n.decomposed for n in f.config.mlp.graph if n.name == "top0"] for f in (rich, found)]
    assert divided == [[True], [False]]
    assert sum(layer.resources.dsp for layer in found.layers) < used


def test_packing_when_slices_are_short():
    spec = model_spec("rmc3", 1000)
    part = replace(Z020.part, dsp=100)
    board = replace(Z020, part=part)
    options = FitOptions(share=0.05, limit=0.9)
    rich = fit(spec, PAPER, replace(board, part=replace(part, dsp=100_000, bram36=2000)), Costs(), options)
    slices = sum(c.kr * c.kc for c in cores(rich.config.mlp.graph))
    scarce = replace(board, part=replace(part, dsp=int(slices * 0.9), bram36=2000, lut=10**6, ff=10**6))
    assert not rich.config.mlp.packed
    assert fit(spec, PAPER, scarce, Costs(), options).config.mlp.packed


class SoftCosts(Costs):
    """A product of LUTs takes 60, and no slice."""

    def core(self, core, mlp, beat_bytes, lanes, hold):
        on_slices = replace(core, kr=core.kr - core.lut_rows, lut_rows=0)
        return super().core(on_slices, mlp, beat_bytes, lanes, hold) + Resources(lut=60 * core.lut_rows * core.kc)


@pytest.mark.parametrize("packed", [False, True])
def test_products_of_luts_when_slices_are_short_whatever_kernels_there_are(packed):
    options = FitOptions(limit=1.0, packed=packed)
    rich = fit(FAST, PAPER, Z020, SoftCosts(), options)
    assert not any(n.lut_rows for n in rich.config.mlp.graph)
    slices = sum(layer.resources.dsp for layer in rich.layers)
    scarce = replace(Z020, part=replace(Z020.part, dsp=slices * 3 // 4))
    found = fit(FAST, PAPER, scarce, SoftCosts(), options)
    assert sum(layer.resources.dsp for layer in found.layers) <= scarce.part.dsp
    assert any(n.lut_rows for n in found.config.mlp.graph)
    assert found.queries_per_second == rich.queries_per_second
    assert DeviceConfig.from_toml(found.config.to_toml()) == found.config
    assert {row["node"]: row["lut_rows"] for row in to_records(found)["layers"]} == {
        n.name: n.lut_rows for n in found.config.mlp.graph if n.kind == "fc"}
    room = sum(layer.resources.lut for layer in found.layers) - 1
    costs = SoftCosts(replace(REST, lut=Z020.part.lut - room))
    assert fit(FAST, PAPER, Z020, costs, options).config == rich.config
    with pytest.raises(NothingFits, match="dsp"):
        fit(FAST, PAPER, scarce, costs, options)


@pytest.mark.parametrize("packed", [False, True])
def test_no_fewer_products_free_as_many_slices(packed):
    """Against every combination of rows."""
    graph = tuple(Node(name, "fc", 16, (), kr=kr, kc=kc, decomposed=bool(split), kr_split=split, kc_split=split and (2, 4))
                  for name, kr, kc, split in (("a", 4, 2, ()), ("b", 5, 1, ()), ("c", 4, 2, (4, 2)), ("d", 1, 8, ())))
    graph = (Node("x", "dense", 16), Node("y", "dense", 16),
             *(replace(n, inputs=("x", "y") if n.decomposed else ("x",)) for n in graph))

    def slices(core):
        rows = core.kr - core.lut_rows
        return (-(-rows // 2) if packed else rows) * core.kc

    def taken(some):
        return sum(slices(c) for c in cores(some))

    ways = [tuple(replace(n, lut_rows=k) for n, k in zip(graph, rows, strict=True))
            for rows in itertools.product(range(1), range(1), range(4), range(5), range(2), range(1))]
    freed = [taken(graph) - taken(way) for way in ways]
    products = [sum(c.lut_rows * c.kc for c in cores(way)) for way in ways]
    for excess in range(1, max(freed) + 1):
        found = with_lut_rows(graph, excess, slices)
        assert found is not None
        assert taken(graph) - taken(found) >= excess
        assert sum(c.lut_rows * c.kc for c in cores(found)) == min(
            p for p, f in zip(products, freed, strict=True) if f >= excess)
    assert with_lut_rows(graph, max(freed) + 1, slices) is None


def test_random_rows_keep_the_lookups_from_their_ceiling():
    def share(slots, dies=1, channels=4, name="ncf"):
        flash = replace(PAPER.flash, dies=dies, channels=channels)
        return balance(model_spec(name, 1000), replace(PAPER, flash=flash, lookup=replace(PAPER.lookup, sample_slots=slots)))

    few = [share(n) for n in (2, 4, 8, 16, 32)]  # four lookups a sample
    assert few == sorted(few)
    assert few[0] < 0.75 < 0.9 < few[-1] < 1
    assert share(4, name="rmc1") > 0.95  # 640 lookups a sample
    assert share(32, channels=1) > 0.99  # one die has nothing to be balanced with
    assert slots_for(model_spec("ncf", 1000), PAPER, 0.9, 4) == 4 * 2 ** [n > 0.9 for n in few[1:]].index(True)


def test_formats_by_layer():
    found = fit(SMALL, PAPER, Z020, COSTS, FitOptions(formats=(("top1", 16),)))
    assert {n.name: n.weight_bits for n in found.config.mlp.graph if n.kind == "fc"} == {
        "bot0": 8, "bot1": 8, "top0": 8, "top1": 16, "top2": 8}
    for wrong, name in ((("top7", 16), "formats"), (("top1", 4), "top1")):
        with pytest.raises(ModelError, match=name):
            fit(SMALL, PAPER, Z020, COSTS, FitOptions(formats=(wrong,)))


def test_formats_that_stay_close_to_fp32():
    model, batches = RecModel(SMALL, seed=0), []
    rng = np.random.default_rng(1)
    for _ in range(2):
        bags = [(rng.integers(0, t.rows, 8 * t.lookups), np.arange(8) * t.lookups) for t in SMALL.tables]
        batches.append((rng.standard_normal((8, 32)).astype(np.float32), bags))
    coarse, fine = (least_formats(model, PAPER, batches, error) for error in (0.2, 1e-3))
    assert (coarse.act_bits, set(coarse.weight_bits.values())) == (8, {8})
    assert fine.act_bits == 16
    assert fine.error <= 1e-3 < coarse.error <= 0.2
    size = {n.name: n.width * c for n, c in SMALL.layers()}
    some = least_formats(model, PAPER, batches, fine.error * 5)  # fewer bits for less
    assert sum(size[k] * v for k, v in some.weight_bits.items()) <= sum(size[k] * v for k, v in fine.weight_bits.items())
    with pytest.raises(ModelError, match="can't be reached"):
        least_formats(model, PAPER, batches, 1e-9)


def test_says_what_does_not_fit():
    with pytest.raises(NothingFits, match=r"lut 1[0-9]{2}%.*What would: a larger part"):
        fit(SMALL, PAPER, Z020, Costs(Resources(lut=60_000)))
    too_fast = r"block RAM is too small.*all weights on chip; weights arrive more slowly.*streaming top0, top1, top2\."
    with pytest.raises(NothingFits, match=too_fast):
        fit(model_spec("wnd", 1000), PAPER, Z020, COSTS, FitOptions(share=1e-4))
    roomy = replace(Z020, part=replace(Z020.part, bram36=5000))
    with pytest.raises(NothingFits, match=r"no kernels are fast enough for 1 steps a stage with all weights on chip"):
        fit(model_spec("wnd", 1000), PAPER, roomy, COSTS, FitOptions(share=1e-4))
    with pytest.raises(ModelError, match="stream"):
        fit(SMALL, PAPER, Z020, Costs(), FitOptions(stream=("top7",)))
    with pytest.raises(ModelError, match="share"):
        FitOptions(share=0)
    with pytest.raises(ModelError, match="limit"):
        FitOptions(limit=1.5)


class Counting(Costs):
    """Counts the kernels that are estimated."""

    estimates = 0

    def core(self, core, mlp, beat_bytes, lanes, hold):
        self.estimates += 1
        return super().core(core, mlp, beat_bytes, lanes, hold)

    def core_floor(self, core, mlp, beat_bytes):
        return replace(super().core(core, mlp, beat_bytes, 1, False), lut=0, ff=0)


def layers_cost(found):
    return sum(sum(layer.resources.shares(found.board.part).values()) for layer in found.layers)


def test_what_kernels_need_at_least_ends_a_search_before_it_begins():
    few = replace(Z020, part=replace(Z020.part, dsp=8))  # five epilogues of two slices, six cores of one
    costs = Counting(replace(REST, lut=42_500))  # no LUTs for products
    with pytest.raises(NothingFits, match="dsp at least 200% with all weights on chip"):
        fit(SMALL, PAPER, few, costs, FitOptions(share=0.5))
    assert costs.estimates == 0
    costs = Counting()
    found = fit(model_spec("rmc2", 1000), PAPER, Z020, costs, THREE_QUARTERS)  # block RAM: top0 must be streamed
    assert {c.node for c in cores(found.config.mlp.graph) if c.weights == "dram"} == {"top0"}
    assert 0 < costs.estimates < 1000
    usual = fit(model_spec("rmc2", 1000), PAPER, Z020, Costs(), THREE_QUARTERS)  # whose floors know no block RAM
    assert layers_cost(found) == pytest.approx(layers_cost(usual))


def test_streaming_on_request():
    found = fit(SMALL, PAPER, Z020, Costs(), FitOptions(stream=("top0",)))
    assert {c.node for c in cores(found.config.mlp.graph) if c.weights == "dram"} == {"top0"}


def test_plan_survives_its_file_and_reports_in_plain_values():
    found = fit(SMALL, PAPER, Z020, Costs())
    assert DeviceConfig.from_toml(found.config.to_toml()) == found.config
    out = to_records(found)
    assert out["part"] == "XC7Z020"
    assert out["slack_lut_share"] == pytest.approx(0.8 - 20_000 / 53_200)
    assert [row["node"] for row in out["layers"]] == ["bot0", "bot1", "top0", "top0", "top1", "top2"]


def test_boards_by_name():
    assert find_board("PYNQ-Z2") is BOARDS["pynq-z2"]
    assert find_board("xczu7ev").name == "zcu104"
    with pytest.raises(ConfigError, match="board"):
        find_board("de10")
