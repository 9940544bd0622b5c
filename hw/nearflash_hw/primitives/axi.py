"""The signatures of AXI4 and AXI3 buses, with the standard's member names (:func:`~nearflash_hw.verilog.to_verilog` makes
the port ``m_axi`` appear as ``m_axi_awaddr`` and so on, as tools that infer AXI interfaces want it)."""

from __future__ import annotations

from typing import Any

from amaranth.lib.wiring import In, Out, Signature

__all__ = ["ADDRESS_FIELDS", "Axi3Signature", "AxiSignature"]

#: Of an address channel, beside its handshake.
ADDRESS_FIELDS = ("id", "addr", "len", "size", "burst", "lock", "cache", "prot", "qos")


class _FullAxi(Signature):
    """What AXI3 and AXI4 have in common."""

    LEN_BITS: int
    LOCK_BITS: int

    def __init__(self, addr_bits: int, data_bits: int, id_bits: int):
        if not 12 <= addr_bits <= 64:
            raise ValueError(f"addr_bits = {addr_bits}: must be from 12 to 64")
        if data_bits not in (32, 64, 128, 256, 512, 1024):
            raise ValueError(f"data_bits = {data_bits}: must be a power of two from 32 to 1024")
        if id_bits < 1:
            raise ValueError(f"id_bits = {id_bits}: must be at least 1")
        self._addr_bits, self._data_bits, self._id_bits = addr_bits, data_bits, id_bits
        super().__init__(self._members_of(addr_bits, data_bits, id_bits))

    @classmethod
    def _members_of(cls, addr_bits: int, data_bits: int, id_bits: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for ch in ("aw", "ar"):
            members |= {
                f"{ch}id": Out(id_bits), f"{ch}addr": Out(addr_bits), f"{ch}len": Out(cls.LEN_BITS), f"{ch}size": Out(3),
                f"{ch}burst": Out(2), f"{ch}lock": Out(cls.LOCK_BITS), f"{ch}cache": Out(4), f"{ch}prot": Out(3),
                f"{ch}qos": Out(4), f"{ch}valid": Out(1), f"{ch}ready": In(1)}
        return members | {
            "wdata": Out(data_bits), "wstrb": Out(data_bits // 8), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
            "bid": In(id_bits), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "rid": In(id_bits), "rdata": In(data_bits), "rresp": In(2), "rlast": In(1), "rvalid": In(1),
            "rready": Out(1)}

    @property
    def addr_bits(self) -> int:
        return self._addr_bits

    @property
    def data_bits(self) -> int:
        return self._data_bits

    @property
    def id_bits(self) -> int:
        return self._id_bits

    def __eq__(self, other):
        return (type(other) is type(self) and (self._addr_bits, self._data_bits, self._id_bits)
                == (other._addr_bits, other._data_bits, other._id_bits))

    def __repr__(self):
        return f"{type(self).__name__}({self._addr_bits}, {self._data_bits}, {self._id_bits})"


class AxiSignature(_FullAxi):
    """Full AXI4 (Arm IHI 0022) as seen by the initiator, without user and region signals.

    Rules beyond AXI's own that every initiator of a device keeps: INCR bursts of full-width beats only, beat-aligned
    addresses, no locking, ``awcache``/``arcache`` 0b0011 (normal, non-cacheable, bufferable).
    """

    LEN_BITS, LOCK_BITS = 8, 1


class Axi3Signature(_FullAxi):
    """AXI3 (Arm IHI 0022) as seen by the initiator, without user signals. What differs from :class:`AxiSignature`: bursts of
    at most 16 beats, two bits of lock, and the burst's ID with its write data. QOS, which came with AXI4, is there because
    a Zynq-7000's AXI3 ports have it (UG585, chapter 5)."""

    LEN_BITS, LOCK_BITS = 4, 2

    @classmethod
    def _members_of(cls, addr_bits: int, data_bits: int, id_bits: int) -> dict[str, Any]:
        return super()._members_of(addr_bits, data_bits, id_bits) | {"wid": Out(id_bits)}
