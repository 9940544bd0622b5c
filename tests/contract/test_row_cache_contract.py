"""The row cache's configuration."""

from dataclasses import replace

import numpy as np
import pytest
from nearflash.contract import ConfigError, DeviceConfig, RowCacheConfig, register_map
from nearflash.contract.registers import counters
from nearflash.contract.row_cache import line_key, with_row_cache

PAPER = DeviceConfig.preset("paper")


def test_off_it_is_no_part_of_the_design():
    other = replace(PAPER, row_cache=RowCacheConfig(ways=4, line_bytes=64))
    on = replace(PAPER, row_cache=RowCacheConfig(lines=1024))
    assert other.design_id == PAPER.design_id == 0x249F2C8C  # as before there was one
    assert counters(other) == counters(PAPER)
    assert other.layout.end == other.layout.row_cache
    assert on.design_id != PAPER.design_id
    assert on.design_id != replace(on, row_cache=RowCacheConfig(lines=1024, ways=4)).design_id
    assert len(register_map(on)) == len(register_map(PAPER))
    assert [n for n in counters(on) if n not in counters(PAPER)] == [
        "cache_hits_count", "cache_kept_count", "cache_dropped_count"]


def test_its_lines_lie_behind_everything_else():
    on = replace(PAPER, row_cache=RowCacheConfig(lines=1024, line_bytes=256))
    assert on.layout.row_cache == PAPER.layout.end
    assert on.layout.end == PAPER.layout.end + 1024 * 256
    assert on.row_cache.sets == 128
    assert DeviceConfig.from_toml(on.to_toml()) == on


@pytest.mark.parametrize(("values", "says"), [
    ({"lines": 24}, "row_cache.lines = 24: must be 0 .* power of two from two sets .16."),
    ({"lines": 8}, "row_cache.lines = 8: .* two sets .16."), ({"lines": 1 << 21}, "row_cache.lines = 2097152"),
    ({"lines": 64, "ways": 3}, "row_cache.ways = 3: must be a power of two of at most 16"),
    ({"lines": 64, "ways": 32}, "row_cache.ways = 32"),
    ({"lines": 64, "line_bytes": 8}, r"row_cache.line_bytes = 8: .* beat_bytes \(16\) to flash.page_bytes \(4096\)"),
    ({"lines": 64, "line_bytes": 8192}, "row_cache.line_bytes = 8192"),
    ({"lines": 64, "line_bytes": 96}, "row_cache.line_bytes = 96"), ({"lines": "many"}, "row_cache.lines = 'many'")])
def test_limits(values, says):
    with pytest.raises(ConfigError, match=says):
        replace(PAPER, row_cache=RowCacheConfig(**values))


def test_a_cache_of_so_many_mib():
    assert with_row_cache(PAPER, 1, 128).row_cache == RowCacheConfig(8192, 8, 128)
    assert with_row_cache(PAPER, 1.9, 100).row_cache == RowCacheConfig(8192, 8, 128)
    assert with_row_cache(PAPER, 0.125, 4096).row_cache == RowCacheConfig(32, 8, 4096)
    assert with_row_cache(with_row_cache(PAPER, 1, 128), 0, 128) == PAPER
    for mib, row, says in ((-1, 128, "cache_mib = -1: must be from 0"), (5000, 128, "to 4096 MiB"),
                           (float("nan"), 128, "cache_mib = nan"), (0.001, 128, "must hold at least 16 lines of 128 bytes"),
                           (256, 128, "must be at most 128 MiB with lines of 128 bytes")):
        with pytest.raises(ConfigError, match=says):
            with_row_cache(PAPER, mib, row)


def test_the_key_of_a_place():
    """By hand: 128 sets, pages of 32 lines of 8 beats, 2**16 pages."""
    on = replace(PAPER, row_cache=RowCacheConfig(lines=1024))
    assert line_key(on, 0, 24) == 3
    assert line_key(on, 3, 24) == 3 * 32 + 3
    assert line_key(on, 5, 24) == 0b1_0100011 ^ 0b1  # what is above the 7 bits of a set, onto them
    assert line_key(on, 5, 28) == (4 << 21 | 0b1_0100011) ^ 0b1 ^ 4  # the beat in its line on top
    assert line_key(on, np.array([3, 5]), np.array([24, 28])).tolist() == [line_key(on, 3, 24), line_key(on, 5, 28)]


@pytest.mark.parametrize("cache", [RowCacheConfig(lines=1024), RowCacheConfig(64, 4, 64), RowCacheConfig(2, 1, 4096),
                                   RowCacheConfig(1 << 20, 2, 16)])
def test_each_place_has_a_key_of_its_own_and_neighbours_have_all_sets(cache):
    on = replace(PAPER, row_cache=cache)
    page, column = (x.ravel() for x in np.mgrid[: on.flash.total_pages, : on.page_beats])
    keys = line_key(on, page, column)
    assert len(np.unique(keys)) == len(keys)
    assert 0 <= keys.min() <= keys.max() < on.flash.total_pages * on.page_beats
    lines = keys[column % (cache.line_bytes // on.beat_bytes) == 0]
    whole = lines[: len(lines) // cache.sets * cache.sets].reshape(-1, cache.sets)
    assert (np.sort(whole % cache.sets, axis=1) == np.arange(cache.sets)).all()
