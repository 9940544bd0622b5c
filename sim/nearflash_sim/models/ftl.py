"""Translations without a flash translation layer, for test benches of the Amaranth simulator."""

from __future__ import annotations

from ..bench.streams import StreamSink, StreamSource

__all__ = ["FtlModel"]


class FtlModel:
    """Answers translations in order. ``mapping``: lpn -> ppn, missing = unmapped, "error" = DRAM error."""

    def __init__(self, req, rsp, mapping, stall=0.0, seed=0):
        self.mapping = mapping
        self.rsp = StreamSource(rsp, stall=stall, seed=seed)
        self.req = StreamSink(req, stall, seed + 1, on_item=self.request)
        self.actors = [self.req, self.rsp]

    def request(self, r):
        ppn = self.mapping.get(r["lpn"])
        if ppn is None or ppn == "error":
            self.rsp.items.append({"ppn": 0, "mapped": int(ppn is not None), "error": int(ppn is not None)})
        else:
            self.rsp.items.append({"ppn": ppn, "mapped": 1, "error": 0})
