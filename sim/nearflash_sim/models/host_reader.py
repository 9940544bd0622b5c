"""Host memory behind a reader's streams (:class:`~nearflash_hw.host.host_dma.HostReader`), for test benches."""

from __future__ import annotations

from ..bench.streams import StreamSink, StreamSource

__all__ = ["HostReaderModel"]


class HostReaderModel:
    """Answers PRP requests from ``buffers`` (prp1 -> bytes). ``fail(prp1, n)`` for the n-th request of this reader may
    return (beats, status): the transfer then ends with that status after so many beats. ``swap(prp1)`` replaces content."""

    def __init__(self, config, req, data, buffers, stall=0.0, seed=0, fail=lambda prp1, n: None, swap=lambda prp1: None):
        self.beat, self.buffers, self.fail, self.swap = config.beat_bytes, buffers, fail, swap
        self.requests = 0
        self.out = StreamSource(data, stall=stall, seed=seed)
        self.req = StreamSink(req, stall, seed + 1, on_item=self.request)
        self.actors = [self.out, self.req]

    def request(self, r):
        content = self.swap(r["prp1"]) or self.buffers[r["prp1"]]
        content = content[: r["length"]]
        beats = -(-r["length"] // self.beat)
        content = content.ljust(beats * self.beat, b"\xee")
        words = [int.from_bytes(content[i : i + self.beat], "little") for i in range(0, beats * self.beat, self.beat)]
        bad = self.fail(r["prp1"], self.requests)
        self.requests += 1
        if bad is None:
            self.out.items += [{"data": w, "last": int(k == beats - 1), "status": 0} for k, w in enumerate(words)]
        else:
            self.out.items += [{"data": w, "last": 0, "status": 0} for w in words[: bad[0]]]
            self.out.items.append({"data": 0, "last": 1, "status": bad[1]})
