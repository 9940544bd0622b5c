"""Perfetto's files: protobuf messages of TrackEvent, one track a name (package ``perfetto``). https://ui.perfetto.dev opens
them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..contract import DataError, NearflashError
from ..contract.reading import reading
from ..whole import whole_file
from .slices import Slice, check_slices

__all__ = ["read_timeline", "write_timeline"]

SEQUENCE = 1
_WHAT = "a Perfetto trace"


def _messages() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError as e:
        raise NearflashError(f"timelines take the package perfetto ({e}): pip install 'nearflash[timeline]'") from e
    return perfetto_trace_pb2


def write_timeline(path: Path, slices: Iterable[Slice], clock_mhz: float) -> dict[str, int]:
    """Write ``slices``, in cycles of ``clock_mhz``, as ns; returns how many each track has. Whole or not at all. Raises
    :class:`~nearflash.contract.DataError` for slices that overlap on a track, :class:`~nearflash.contract.NearflashError`
    without the package."""
    pb, tracks = _messages(), check_slices(slices)
    trace = pb.Trace()
    events: list[tuple[int, int, int, str]] = []
    for uuid, name in enumerate(sorted(tracks), 1):
        packet = trace.packet.add(trusted_packet_sequence_id=SEQUENCE)
        packet.track_descriptor.uuid, packet.track_descriptor.name = uuid, name
        for s in tracks[name]:
            begin, end = (round(t * 1000 / clock_mhz) for t in (s.begin, s.end))
            events += [(begin, 1, uuid, s.name), (end, 0, uuid, "")]
    for at, opens, uuid, name in sorted(events):  # what ends goes before what begins in the same ns
        packet = trace.packet.add(timestamp=at, trusted_packet_sequence_id=SEQUENCE)
        event = packet.track_event
        event.track_uuid = uuid
        event.type = pb.TrackEvent.TYPE_SLICE_BEGIN if opens else pb.TrackEvent.TYPE_SLICE_END
        if opens:
            event.name = name
    with whole_file(path) as part:
        part.write_bytes(trace.SerializeToString())
    return {name: len(tracks[name]) for name in sorted(tracks)}


def read_timeline(path: Path) -> dict[str, list[Slice]]:
    """A timeline's slices by track, in ns. Raises :class:`~nearflash.contract.DataError` naming the file for one that is
    damaged or another's, and for a track on which two slices are open."""
    pb, trace = _messages(), None
    with reading(path):
        with reading(path, _WHAT):
            trace = pb.Trace.FromString(Path(path).read_bytes())
        names: dict[int, str] = {}
        opened: dict[int, tuple[int, str]] = {}
        slices: list[Slice] = []
        for packet in trace.packet:
            if packet.HasField("track_descriptor"):
                names[packet.track_descriptor.uuid] = packet.track_descriptor.name
                continue
            if not packet.HasField("track_event"):
                continue
            event = packet.track_event
            track = names.get(event.track_uuid)
            if track is None:
                raise DataError("track_uuid", event.track_uuid, "must be of a track described before")
            if event.type == pb.TrackEvent.TYPE_SLICE_BEGIN:
                if event.track_uuid in opened:
                    held = opened[event.track_uuid][1]
                    raise DataError(track, packet.timestamp, f"{event.name} begins while {held} is open")
                opened[event.track_uuid] = packet.timestamp, event.name
            elif event.type == pb.TrackEvent.TYPE_SLICE_END:
                if event.track_uuid not in opened:
                    raise DataError(track, packet.timestamp, "a slice ends that did not begin")
                begin, name = opened.pop(event.track_uuid)
                slices.append(Slice(track, name, begin, packet.timestamp))
        if opened:
            uuid, (begin, name) = next(iter(opened.items()))
            raise DataError(names[uuid], begin, f"{name} never ends: the file is incomplete")
        if not names:
            raise DataError("tracks", 0, f"not {_WHAT} with named tracks")
        return check_slices(slices)
