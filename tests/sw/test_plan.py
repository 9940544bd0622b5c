"""The planner keeps its promises: stage times, placement, composition and decomposition, and limits that fit."""

import pytest
from nearflash.compiler import PlanOptions, compile_device, embedding_cycles, stage_cycles
from nearflash.contract import DeviceConfig, ModelError, cores
from nearflash.models import ZOO, model_spec

PAPER = DeviceConfig.preset("paper")


def test_embedding_time_is_the_papers():
    # RMC1: 640 lookups x 2838 cycles / 4 channels; 200 MHz / that = 441 inferences per second
    assert embedding_cycles(model_spec("rmc1"), PAPER) == 640 * 2838 / 4
    assert round(200e6 / embedding_cycles(model_spec("rmc2"), DeviceConfig.preset("paper", dies=4))) == 290


@pytest.mark.parametrize("dies", [1, 4])
@pytest.mark.parametrize("name", sorted(ZOO))
def test_stages_hide_behind_the_embedding(name, dies):
    spec, base = model_spec(name, 1000), DeviceConfig.preset("paper", dies=dies)
    config = compile_device(spec, base)
    graph, limit = config.mlp.graph, max(256, embedding_cycles(spec, base) / 2)
    assert stage_cycles(graph, "bot") <= limit
    assert stage_cycles(graph, "top") <= limit
    n_batch = config.mlp.n_batch
    for c in cores(graph):
        big = sum(n.width * k for n, k in spec.layers() if n.name == c.node) > 512 * 1024
        assert c.weights == ("dram" if big else "onchip")
        if big:
            assert c.word_bytes >= config.beat_bytes
    beats = sum(c.steps * c.word_bytes // config.beat_bytes for c in cores(graph) if c.weights == "dram")
    assert beats / n_batch <= limit or n_batch == 32
    assert n_batch == 1 or 2 * beats / n_batch > limit
    assert config.lookup.sample_slots >= 2 * n_batch
    assert config.lookup.accumulators >= sum(t.dim for t in spec.tables)
    assert config.lookup.max_tables >= len(spec.tables)


def test_kernels_are_no_larger_than_needed():
    # at one die everything of RMC1 fits in the embedding's shadow with single multipliers
    config = compile_device(model_spec("rmc1", 1000), PAPER)
    assert all((c.kr, c.kc) == (1, 1) for c in cores(config.mlp.graph))
    fast = compile_device(model_spec("rmc1", 1000), PAPER, PlanOptions(share=0.01))
    assert sum(c.kr * c.kc for c in cores(fast.mlp.graph)) > len(cores(fast.mlp.graph))
    assert stage_cycles(fast.mlp.graph, "top") <= 4541


def test_composition_alternates_and_decomposition_splits():
    spec = model_spec("rmc1", 1000)
    fcs = [n for n in compile_device(spec, PAPER).mlp.graph if n.kind == "fc"]
    assert all(a.scan != b.scan for a, b in zip(fcs, fcs[1:], strict=False))
    assert [n.name for n in fcs if n.decomposed] == ["top0"]
    plain = [n for n in compile_device(spec, PAPER, PlanOptions(composition=False, decomposition=False)).mlp.graph
             if n.kind == "fc"]
    assert {n.scan for n in plain} == {"row"}
    assert not any(n.decomposed for n in plain)


def test_composed_pairs_take_the_longer():
    spec = model_spec("rmc1", 1000)
    whole = stage_cycles(compile_device(spec, PAPER, PlanOptions(composition=False)).mlp.graph, "bot")
    assert whole == 128 * 64 + 64 * 32
    assert stage_cycles(compile_device(spec, PAPER).mlp.graph, "bot") == 128 * 64


def test_flash_grows_to_hold_the_tables():
    spec = model_spec("rmc1", 400_000)
    config = compile_device(spec, PAPER)
    assert config.lbas * 32 >= 8 * 400_000
    assert config.flash.blocks > PAPER.flash.blocks


def test_impossible_models_are_refused():
    with pytest.raises(ModelError, match=r"tables\[0\]\.dim"):
        compile_device(model_spec("rmc2", 1000).__class__("m", (model_spec("rmc2").tables[0].__class__(10, 256),)),
                       DeviceConfig.preset("tiny"))
    with pytest.raises(ModelError, match="weight_bits"):
        PlanOptions(weight_bits=4)
