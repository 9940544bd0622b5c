"""Timelines: decoded again, compared with what the flash's parameters say, and with one another."""

from dataclasses import replace

import numpy as np
import pytest
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import DataError, DeviceConfig, TableSpec
from nearflash.contract.row_cache import with_row_cache
from nearflash.models import ModelSpec, TableShape
from nearflash.timeline import Slice, check_slices, read_timeline, write_timeline
from nearflash.timeline.slices import first_difference
from nearflash_sim.timing.simulator import Simulator
from nearflash_sim.timing.workload import Batch, place
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

SPEC = ModelSpec("small", (TableShape(200, 8, 4), TableShape(100, 8, 3)), 5, (17, 8), (21, 7, 1))
CONFIG = compile_device(SPEC, DeviceConfig.preset("paper", channels=2, dies=2), PlanOptions(onchip_bytes=1 << 40))


def simulated(commands=12, samples=3, config=CONFIG, room=100_000):
    rng = np.random.default_rng(0)
    tables = place(config, [TableSpec(t.rows, t.dim) for t in SPEC.tables])
    offsets = [np.arange(samples) * t.lookups for t in SPEC.tables]
    bags = [[(rng.integers(0, t.rows, samples * t.lookups), o) for t, o in zip(SPEC.tables, offsets, strict=True)]
            for _ in range(commands)]
    batches = [Batch.of(b, True, SPEC.dense) for b in bags]
    return Simulator(config, tables, 4, slices=room).run(batches)


def decoded(path):
    """{track: [(begin, end)]} by hand; fails where a slice begins on a track while another is open."""
    names, opened, out = {}, {}, {}
    for p in pb.Trace.FromString(path.read_bytes()).packet:
        if p.HasField("track_descriptor"):
            names[p.track_descriptor.uuid] = p.track_descriptor.name
        elif p.track_event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
            assert p.track_event.track_uuid not in opened
            opened[p.track_event.track_uuid] = p.timestamp
        else:
            uuid = p.track_event.track_uuid
            out.setdefault(names[uuid], []).append((opened.pop(uuid), p.timestamp))
    assert not opened
    return out


@pytest.mark.parametrize("cached", [False, True])
def test_tracks_of_a_run(tmp_path, cached):
    """Every track of the device; busy shares, reads and times of phases as the counters and the configuration have them."""
    run = simulated(config=with_row_cache(CONFIG, 1 if cached else 0, 32))
    write_timeline(tmp_path / "t.pftrace", run.slices, CONFIG.clock_mhz)
    tracks = decoded(tmp_path / "t.pftrace")
    assert set(tracks) == {*(f"host.slot{i}" for i in range(4)), *(f"channel{c}.{w}" for c in "01" for w in (
        "bus", "die0", "die1")), "pooling", "drain", "mlp.bot0", "mlp.bot1", "mlp.top0.0", "mlp.top0.1", "mlp.top1",
        "mlp.top2", *(["cache"] if cached else [])}
    ns = 1000 / CONFIG.clock_mhz
    lookups, samples = 12 * 3 * 7, 12 * 3
    assert len(tracks["pooling"]) == lookups
    assert len(tracks["drain"]) == samples
    assert all(len(tracks[t]) == samples for t in tracks if t.startswith("mlp."))
    assert sum(len(tracks[f"host.slot{i}"]) for i in range(4)) == 12
    hits = run.counters.get("cache_hits_count", 0)
    for c in range(2):
        bus = sum(end - begin for begin, end in tracks[f"channel{c}.bus"])
        commands = len(tracks[f"channel{c}.bus"])
        assert bus == (run.counters[f"channel{c}_bus_busy"] + commands) * ns  # a phase ends with a cycle of turning around
    assert sum(len(tracks[f"channel{c}.bus"]) for c in range(2)) == 2 * (lookups - hits)
    assert len(tracks.get("cache", [])) == hits
    long = [s for s in run.slices if s.name.startswith("array") and s.end - s.begin > CONFIG.t_read / 2]
    assert len(long) == sum(run.counters[f"channel{c}_reads_count"] for c in range(2))
    assert all(CONFIG.t_read <= s.end - s.begin < CONFIG.t_read + 60 for s in long)


def test_a_file_read_back_is_what_was_written(tmp_path):
    run = simulated(2, 1)
    counts = write_timeline(tmp_path / "t.pftrace", run.slices, 200.0)
    tracks = read_timeline(tmp_path / "t.pftrace")
    assert {name: len(slices) for name, slices in tracks.items()} == counts
    assert {s._replace(begin=5 * s.begin, end=5 * s.end) for s in run.slices} == {s for t in tracks.values() for s in t}


def test_the_first_difference():
    a = check_slices([Slice("x", "one", 0, 5), Slice("x", "two", 5, 9), Slice("y", "one", 2, 3), Slice("y", "two", 8, 9)])
    assert first_difference(a, a) is None
    late = {**a, "x": [Slice("x", "one", 0, 5), Slice("x", "two", 6, 9)]}
    late["y"] = [Slice("y", "one", 2, 4), Slice("y", "two", 8, 9)]
    found = first_difference(a, late)
    assert found == ("y", 0, Slice("y", "one", 2, 3), Slice("y", "one", 2, 4))
    short = {"x": a["x"][:1], "y": a["y"]}
    assert first_difference(a, short) == ("x", 1, Slice("x", "two", 5, 9), None)
    assert first_difference({}, a).before is None


def test_a_slower_flash_differs_in_its_first_array_phase(tmp_path):
    slow = replace(CONFIG, flash=replace(CONFIG.flash, t_read_ns=CONFIG.flash.t_read_ns + 5))
    tracks = [check_slices(simulated(2, 1, config=c).slices) for c in (CONFIG, slow)]
    found = first_difference(*tracks)
    assert "die" in found.track
    assert found.before.name.startswith("array")
    assert (found.after.begin, found.after.end) == (found.before.begin, found.before.end + 1)


def test_slices_that_overlap_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"x = 4: two begins while one is open, until 5"):
        write_timeline(tmp_path / "t", [Slice("x", "one", 0, 5), Slice("x", "two", 4, 9)], 200.0)
    with pytest.raises(DataError, match=r"x = \(3, 3\): one: must end after it begins"):
        check_slices([Slice("x", "one", 3, 3)])
    assert not (tmp_path / "t").exists()


def test_a_run_with_more_slices_than_room():
    with pytest.raises(DataError, match=r"slices = 10: must be at least [0-9]+, what this run makes"):
        simulated(2, 1, room=10)


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.ParseFromString(b""), "tracks = 0"), (lambda t: t.packet.pop(), "never ends"),
    (lambda t: t.packet.pop(0), "track_uuid = 1"), (lambda t: t.packet.pop(1), "a slice ends that did not begin"),
    (lambda t: t.packet.insert(1, t.packet[1]), "begins while one is open")])
def test_damaged_files(tmp_path, change, says):
    path = tmp_path / "t.pftrace"
    write_timeline(path, [Slice("x", "one", 0, 5)], 200.0)
    trace = pb.Trace.FromString(path.read_bytes())
    change(trace)
    path.write_bytes(trace.SerializeToString())
    with pytest.raises(DataError, match=says) as e:
        read_timeline(path)
    assert str(path) in str(e.value)


def test_no_trace_at_all(tmp_path):
    (tmp_path / "t").write_bytes(b"\xff" * 40)
    with pytest.raises(DataError, match="not a Perfetto trace"):
        read_timeline(tmp_path / "t")
    with pytest.raises(DataError, match="file = "):
        read_timeline(tmp_path / "none")
