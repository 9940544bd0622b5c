"""The internal memory port: AXI4 bursts without the parts no block here needs.

Rules: ``addr`` is a byte address, beat-aligned; ``beats`` is the exact length (1 or more; any length and alignment: the
interconnect splits at AXI's 256-beat and 4 KiB limits). Read data comes back in request order, ``last`` on the final
beat of a request. A write's data may come before, with or after its request; one ``done`` transfer answers each write
request, in order, after the memory has it. Stream rules throughout: valid never waits for ready; a payload is stable
until it is transferred.
"""

from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature
from nearflash.contract.config import REACH_BITS

__all__ = ["ADDR_BITS", "BEATS_BITS", "MemReadSignature", "MemWriteSignature", "Request"]

ADDR_BITS = REACH_BITS
BEATS_BITS = 16


class Request(data.StructLayout):
    """A read or write of ``beats`` beats from ``addr`` on."""

    def __init__(self):
        super().__init__({
            "addr": ADDR_BITS,
            "beats": BEATS_BITS,
        })


class MemReadSignature(Signature):
    """As seen by the client (initiator): ``req`` out, ``rsp`` in.

    Members: ``req`` stream of {addr, beats}; ``rsp`` stream of {data, last, error}.
    """

    def __init__(self, beat_bytes: int):
        if beat_bytes not in (8, 16, 32):
            raise ValueError(f"beat_bytes = {beat_bytes}: must be 8, 16 or 32")
        self._beat_bytes = beat_bytes
        rsp = data.StructLayout({"data": beat_bytes * 8, "last": 1, "error": 1})
        super().__init__({
            #: {addr, beats}.
            "req": Out(stream.Signature(Request())),
            #: {data, last, error}: as many beats, in request order.
            "rsp": In(stream.Signature(rsp)),
        })

    @property
    def beat_bytes(self) -> int:
        return self._beat_bytes

    def __eq__(self, other):
        return isinstance(other, MemReadSignature) and self._beat_bytes == other._beat_bytes

    def __repr__(self):
        return f"MemReadSignature({self._beat_bytes})"


class MemWriteSignature(Signature):
    """As seen by the client (initiator): ``req`` and ``data`` out, ``done`` in.

    Members: ``req`` stream of {addr, beats}; ``data`` stream of {data, strb} (one strobe bit per byte); ``done`` stream
    of {error}.
    """

    def __init__(self, beat_bytes: int):
        if beat_bytes not in (8, 16, 32):
            raise ValueError(f"beat_bytes = {beat_bytes}: must be 8, 16 or 32")
        self._beat_bytes = beat_bytes
        wdata = data.StructLayout({"data": beat_bytes * 8, "strb": beat_bytes})
        super().__init__({
            #: {addr, beats}.
            "req": Out(stream.Signature(Request())),
            #: {data, strb}: a strobe bit per byte.
            "data": Out(stream.Signature(wdata)),
            #: {error}: one per request, once the memory has it.
            "done": In(stream.Signature(data.StructLayout({"error": 1}))),
        })

    @property
    def beat_bytes(self) -> int:
        return self._beat_bytes

    def __eq__(self, other):
        return isinstance(other, MemWriteSignature) and self._beat_bytes == other._beat_bytes

    def __repr__(self):
        return f"MemWriteSignature({self._beat_bytes})"
