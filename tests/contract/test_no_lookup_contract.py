"""The configuration of a device without a lookup engine."""

from dataclasses import replace

import pytest
from nearflash.compiler import compile_device
from nearflash.contract import ConfigError, DeviceConfig, MlpConfig, RowCacheConfig, TableSpec
from nearflash.contract.identify import limits
from nearflash.contract.registers import counters
from nearflash.contract.tensor import TensorConfig
from nearflash.models import model_spec

PAPER = DeviceConfig.preset("paper")
WITHOUT = replace(PAPER, lookup=replace(PAPER.lookup, max_tables=0))


def changed(**lookup):
    return replace(WITHOUT, lookup=replace(WITHOUT.lookup, **lookup))


def test_of_the_groups_for_queries_the_map_cache_alone_is_part_of_the_design():
    same = (changed(tags=64, lanes=1, formats=("int8",)), replace(WITHOUT, mlp=MlpConfig(act_bits=16)),
            replace(WITHOUT, host=replace(WITHOUT.host, infer_depth=1, max_batch=7)))
    assert {c.design_id for c in same} == {WITHOUT.design_id}
    others = (PAPER, changed(map_cache_lines=64), replace(WITHOUT, tensor=TensorConfig(rows=16)),
              replace(WITHOUT, host=replace(WITHOUT.host, mdts_pages=16)))
    assert len({WITHOUT.design_id, *(c.design_id for c in others)}) == 5
    assert DeviceConfig.from_toml(WITHOUT.to_toml()) == WITHOUT


def test_its_memory_has_block_storage_and_tensors_alone():
    both = replace(WITHOUT, tensor=TensorConfig(rows=16, dram_bytes=1 << 20))
    at = both.layout
    assert at == replace(PAPER, tensor=both.tensor).layout
    assert at.weights == at.tensor == at.superblock + 4096
    assert at.row_cache == at.end == at.tensor + (1 << 20)
    assert WITHOUT.layout.end == WITHOUT.layout.superblock + 4096


def test_what_it_says_of_itself():
    assert [name for name in counters(PAPER) if name not in counters(WITHOUT)] == [
        "lookups_count", "samples_count", "mlp_busy", "mlp_mac_steps_count"]
    assert counters(WITHOUT)[:2] == ("cycles", "map_misses_count")
    said = limits(WITHOUT)
    assert list(said) == list(limits(PAPER))
    assert [name for name, v in said.items() if v] == [
        "version", "design_id", "lba_bytes", "lbas", "beat_bytes", "mdts_pages", "queue_pairs", "queue_entries"]


@pytest.mark.parametrize(("values", "says"), [
    ({"max_tables": -1}, "lookup.max_tables = -1: must be an integer of at least 0"),
    ({"map_cache_lines": 3}, "lookup.map_cache_lines = 3: must be a power of two"),
    ({"map_cache_lines": 0}, "lookup.map_cache_lines = 0: must be an integer of at least 1"),
    ({"tags": 0}, "lookup.tags = 0: must be an integer of at least 1"),
    ({"max_tables": 257}, "lookup.max_tables = 257: must be at most 256")])
def test_limits(values, says):
    with pytest.raises(ConfigError, match=says):
        changed(**values)


def test_what_a_lookup_engine_feeds_is_refused():
    with pytest.raises(ConfigError, match=r"row_cache.lines = 64: must be 0 with lookup.max_tables = 0"):
        replace(WITHOUT, row_cache=RowCacheConfig(lines=64))
    with pytest.raises(ConfigError, match=r"lookup.page_window = 8: must be 0 with lookup.max_tables = 0"):
        changed(page_window=8)
    with pytest.raises(ConfigError, match=r"lookup.map_misses = 4: must be 1 with lookup.max_tables = 0"):
        changed(map_misses=4)
    with pytest.raises(ConfigError, match=r"lookup.longest_queue_first = True: must be off with lookup.max_tables = 0"):
        changed(longest_queue_first=True)
    spec = model_spec("rmc1", 100)
    graph = compile_device(spec, PAPER).mlp
    with pytest.raises(ConfigError, match=r"lookup.max_tables = 0: the model has \d+ tables"):
        replace(WITHOUT, mlp=graph)
    alone = tuple(n for n in graph.graph if n.name in ("dense", "bot0"))
    with pytest.raises(ConfigError, match=r"mlp.graph = \['dense', 'bot0'\]: must be empty with lookup.max_tables = 0"):
        replace(WITHOUT, mlp=replace(graph, graph=alone))
    for refused in (lambda: compile_device(spec, WITHOUT), lambda: TableSpec(4, 4).validate(WITHOUT)):
        with pytest.raises(ConfigError, match=r"lookup.max_tables = 0: must be above 0: this device has no lookup engine"):
            refused()
