"""The designs under test: blocks, or a few of them wired together, with their memory ports on AXI4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace

from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect
from nearflash.compiler import PlanOptions, compile_device
from nearflash.contract import BusConfig, Core, DeviceConfig
from nearflash.models.spec import ModelSpec, TableShape
from nearflash_hw.controller.ftl import Ftl
from nearflash_hw.controller.nvme import Nvme
from nearflash_hw.device import Device
from nearflash_hw.flash import ArrayServer, Channel
from nearflash_hw.host.host_dma import HostReader
from nearflash_hw.lookup.engine import LookupEngine
from nearflash_hw.lookup.pooling import Pooling
from nearflash_hw.lookup.translator import Translator
from nearflash_hw.mlp.core import FcCore
from nearflash_hw.mlp.engine import MlpEngine
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.primitives.memport import ADDR_BITS, MemReadSignature, MemWriteSignature

__all__ = ["CONFIG", "FC_CORES", "MODEL", "Rig", "channel", "device", "fc_cores", "ftl", "lookup", "mlp", "nvme",
           "pooling", "translator", "with_model"]

BUS = BusConfig(id_bits=4)
KEYWORDS = {"table": "table_write"}  # ports whose names are Verilog's


class Rig(wiring.Component):
    """``units`` wired together: ``wires`` lists (from, to) stream ports as "unit.port" or "unit.port.index".

    Memory ports go to the AXI4 master their ``memories`` prefix names ("unit" or "unit.port" -> master). Every other
    port appears at the top by its own name, or as ``unit_port`` if ``prefixed``; inputs of the same name are one port.
    ``cleared`` is one output of all units that have it.
    """

    def __init__(self, units: Mapping[str, wiring.Component], wires: Sequence[tuple[str, str]] = (),
                 memories: Mapping[str, str] | None = None, beat_bytes: int = 8, prefixed: bool = False):
        self.units, self.wires, self.beat_bytes = units, wires, beat_bytes
        self.exposed: list[tuple[str, str, str]] = []  # (unit, port, name at the top)
        self.memories: dict[str, list[tuple[str, str]]] = {}  # master -> (unit, port)
        wired = {".".join(end.split(".")[:2]) for pair in wires for end in pair}
        members: dict[str, wiring.Member] = {}
        for u, unit in units.items():
            for port, member in unit.signature.members.items():
                if f"{u}.{port}" in wired:
                    continue
                if member.is_signature and isinstance(member.signature, (MemReadSignature, MemWriteSignature)):
                    choice = memories or {}
                    self.memories.setdefault(choice.get(f"{u}.{port}") or choice[u], []).append((u, port))
                    continue
                if port == "cleared":
                    members[port] = Out(1)  # all of them
                    continue
                name = f"{u}_{port}" if prefixed else KEYWORDS.get(port, port)
                if name in members and not (members[name] == member and member.flow == In and member.is_port):
                    raise ValueError(f"port {name} of several units: wire it, or ask for prefixed names")
                if member.is_signature and getattr(member.signature, "always_ready", False):
                    member = In(stream.Signature(member.signature.members["payload"].shape))
                members[name] = member
                self.exposed.append((u, port, name))
        for master in self.memories:
            members[master] = Out(AxiSignature(ADDR_BITS, beat_bytes * 8, BUS.id_bits))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        for u, unit in self.units.items():
            m.submodules[u] = unit
        if "cleared" in self.signature.members:
            m.d.comb += self.cleared.eq(Cat(u.cleared for u in self.units.values() if hasattr(u, "cleared")).all())
        for ends in self.wires:
            connect(m, *(self._port(end) for end in ends))
        for u, port, name in self.exposed:
            inner = wiring.Signature({"x": self.units[u].signature.members[port]})
            outer = wiring.Signature({"x": self.signature.members[name]})
            ends = (s.flatten(SimpleNamespace(x=getattr(unit, n)))
                    for s, unit, n in ((inner, self.units[u], port), (outer, self, name)))
            for (_, member, a), (_, _, b) in zip(*ends, strict=True):
                m.d.comb += b.eq(a) if member.flow == Out else a.eq(b)
        for master, ports in self.memories.items():
            reads, writes = ([getattr(self.units[u], p) for u, p in ports
                              if isinstance(self.units[u].signature.members[p].signature, kind)]
                             for kind in (MemReadSignature, MemWriteSignature))
            m.submodules[f"{master}_interconnect"] = ic = MemInterconnect(self.beat_bytes, len(reads), len(writes), BUS)
            for clients, sockets in ((reads, ic.read), (writes, ic.write)):
                for k, client in enumerate(clients):
                    connect(m, client, sockets[k])
            connect(m, ic.axi, wiring.flipped(getattr(self, master)))
        return m

    def _port(self, path: str):
        u, port, *index = path.split(".")
        found = getattr(self.units[u], port)
        return found[int(index[0])] if index else found


#: Small and fast; every bench uses it.
CONFIG = DeviceConfig.preset("tiny", t_read_ns=400, t_program_ns=600, t_erase_ns=800, bus_page_ns=700)
BEAT = CONFIG.beat_bytes


#: A model of every kind of node but mul, its first top layer decomposed and streamed from DRAM, two samples a group.
MODEL = ModelSpec("bench", (TableShape(40, 4, 6), TableShape(30, 4, 3, "mean", "fp16")), 5, (6, 4), (7, 2), "dot")


def with_model() -> DeviceConfig:
    config = compile_device(MODEL, CONFIG, PlanOptions(onchip_bytes=40, min_mlp_cycles=12))
    # room for other tables than the model's: one compiled device serves all benches of a whole one
    return replace(config, mlp=replace(config.mlp, n_batch=2), lookup=CONFIG.lookup)


def mlp() -> Rig:
    return Rig({"mlp": MlpEngine(with_model())}, memories={"mlp": "dram"})


def device() -> Device:
    return Device(with_model())


def channel() -> Rig:
    return Rig({"channel": Channel(CONFIG), "arrays": ArrayServer(CONFIG)}, [("channel.array", "arrays.channel.0")],
               {"arrays": "dram"})


def ftl() -> Rig:
    return Rig({"ftl": Ftl(CONFIG)}, memories={"ftl": "dram"})


def nvme() -> Rig:
    return Rig({"nvme": Nvme(CONFIG), "reader": HostReader(CONFIG)},
               [("nvme.admin_req", "reader.req"), ("reader.data", "nvme.admin_data")],
               {"nvme": "host", "reader": "host", "nvme.dram_write": "dram"})


def translator() -> Rig:
    """With the FTL, so that the map is in the independent memory."""
    return Rig({"translator": Translator(CONFIG), "ftl": Ftl(CONFIG)},
               [("translator.ftl_req", "ftl.lookup_req"), ("ftl.lookup_rsp", "translator.ftl_rsp")], {"ftl": "dram"})


def pooling() -> Rig:
    return Rig({"pooling": Pooling(CONFIG)})


def lookup() -> Rig:
    """Engine, pooling, FTL and host reader; the flash channels are the bench's."""
    units = {"lookup": LookupEngine(CONFIG), "pooling": Pooling(CONFIG), "ftl": Ftl(CONFIG),
             "reader": HostReader(CONFIG)}
    wires = [("lookup.ftl_req", "ftl.lookup_req"), ("ftl.lookup_rsp", "lookup.ftl_rsp"),
             *((f"lookup.{p}", f"pooling.{p}") for p in ("vector", "bag", "drain")),
             *((f"pooling.{p}", f"lookup.{p}") for p in ("retire", "drained", "pooled")),
             ("lookup.host_req", "reader.req"), ("reader.data", "lookup.host_data")]
    return Rig(units, wires, {"lookup": "host", "reader": "host", "ftl": "dram"})


#: FC cores of :func:`fc_cores`: name -> (core, act_bits, n_batch, lanes). Kernels divide some widths and not others.
FC_CORES = {
    "row": (Core(0, "fc", ("x",), 7, 11, 2, 4, "row", "onchip", 8), 8, 1, 1),
    "column": (Core(0, "fc", ("x",), 5, 13, 4, 2, "column", "onchip", 8), 8, 2, 2),
    "exact": (Core(0, "fc", ("x",), 8, 8, 4, 4, "row", "onchip", 8), 16, 4, 4),
    "dram": (Core(0, "fc", ("x",), 6, 9, 2, 8, "column", "dram", 16), 8, 2, 1),
}


def fc_cores() -> Rig:
    units = {name: FcCore(core, act_bits, n_batch, 2, BEAT, lanes=lanes)
             for name, (core, act_bits, n_batch, lanes) in FC_CORES.items()}
    return Rig(units, memories={"dram": "axi"}, prefixed=True)
