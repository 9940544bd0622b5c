"""The interconnect against cocotbext-axi's AxiRam: a memory written by others than the interconnect."""

import itertools
import os
import random

import cocotb
from cocotbext.axi import AxiBus, AxiRam
from nearflash_hw.primitives.interconnect import MemInterconnect
from nearflash_hw.primitives.memport import MemReadSignature, MemWriteSignature, Request
from nearflash_sim.bench.cocotb import StreamSink, StreamSource, start, until

BEAT = int(os.environ.get("BEAT", "16"))  # pytest imports this module as well
CLIENTS = int(os.environ.get("CLIENTS", "2"))
SPAN = 1 << 16  # bytes of each client's own area
READ, WRITE = MemReadSignature(BEAT).members, MemWriteSignature(BEAT).members
RSP, WDATA, DONE = (s.signature.members["payload"].shape for s in (READ["rsp"], WRITE["data"], WRITE["done"]))
GUARD = 0xA5


def pauses(stall, seed):
    rng = random.Random(seed)
    return (rng.random() < stall for _ in itertools.count())


@cocotb.test(timeout_time=2, timeout_unit="ms")
@cocotb.parametrize(beats=[[1], [2, 255, 256, 257], [1, 3, 40, 600]], stall=[0.0, 0.3])
async def write_then_read(dut, beats, stall):
    """Each writer fills pieces of its own area; what lies between stays; the readers get it all back."""
    await start(dut, MemInterconnect(BEAT, CLIENTS, CLIENTS))
    ram = AxiRam(AxiBus.from_prefix(dut, "axi"), dut.clk, dut.rst, size=SPAN * CLIENTS)
    if stall:
        r, w = ram.read_if, ram.write_if
        for seed, ch in enumerate((r.ar_channel, r.r_channel, w.aw_channel, w.w_channel, w.b_channel)):
            ch.set_pause_generator(pauses(stall, seed))
    rng = random.Random(len(beats))
    ram.write(0, bytes([GUARD]) * SPAN * CLIENTS)
    image = bytearray([GUARD]) * (SPAN * CLIENTS)
    requests, dones = [], []
    for k in range(CLIENTS):
        reqs, words, addr = [], [], k * SPAN
        for _ in range(8):
            n = rng.choice(beats)
            addr += rng.randint(1, 5) * BEAT
            if addr + n * BEAT >= (k + 1) * SPAN:
                break
            reqs.append({"addr": addr, "beats": n})
            for _ in range(n):
                word = rng.randbytes(BEAT)
                words.append({"data": int.from_bytes(word, "little"), "strb": (1 << BEAT) - 1})
                image[addr:addr + BEAT] = word
                addr += BEAT
        requests.append(reqs)
        StreamSource(dut, f"write__{k}__req", Request(), reqs, stall, seed=k)
        StreamSource(dut, f"write__{k}__data", WDATA, words, stall, seed=10 + k)
        dones.append(StreamSink(dut, f"write__{k}__done", DONE, stall, seed=20 + k))
    await until(dut, lambda: all(len(d.items) >= len(r) for d, r in zip(dones, requests, strict=True)),
                max_cycles=100_000, settle=100)
    assert all(d.items == [{"error": 0}] * len(r) for d, r in zip(dones, requests, strict=True))
    assert ram.read(0, len(image)) == bytes(image)

    sinks = [StreamSink(dut, f"read__{k}__rsp", RSP, stall, seed=30 + k) for k in range(CLIENTS)]
    for k, reqs in enumerate(requests):
        StreamSource(dut, f"read__{k}__req", Request(), reqs, stall, seed=40 + k)
    totals = [sum(r["beats"] for r in reqs) for reqs in requests]
    await until(dut, lambda: all(len(s.items) >= n for s, n in zip(sinks, totals, strict=True)), max_cycles=100_000,
                settle=100)
    for sink, reqs in zip(sinks, requests, strict=True):
        assert sink.items == [
            {"data": int.from_bytes(image[a:a + BEAT], "little"), "last": int(i == req["beats"] - 1), "error": 0}
            for req in reqs for i in range(req["beats"]) for a in (req["addr"] + i * BEAT,)]
