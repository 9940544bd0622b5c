"""A device in Python behind the driver's :class:`Backend`: it reads the rings and carries out every command on the
reference models, so the driver is tested without gateware. Commands finish out of order, after ``delay`` cycles each."""

import random
import struct

import numpy as np
from nearflash.contract import AdminOpcode, DataError, Opcode, RowFormat, Status, TableSpec, cores
from nearflash.contract.identify import identify
from nearflash.contract.nvme import CQE, HOST_PAGE, SQE_BYTES
from nearflash.contract.program import (
    DENSE_QUANT,
    DRAM,
    EPILOGUE,
    INTERACTION,
    LOGIT_FORMAT,
    dram_weight_address,
    expected_records,
    weight_word_beats,
)
from nearflash.contract.registers import DOORBELL_BASE, OFFSETS, queue_register
from nearflash.contract.table import EXTENT_WORD, Extent, PoolMode
from nearflash.reference.fp32 import quantize_fp32
from nearflash.reference.ftl import FtlModel
from nearflash.reference.mlp import FcParams, MlpParams, ScaleParams, run_graph
from nearflash.reference.pooling import pool_bags
from nearflash.reference.query import check_query, unpack_queries
from nearflash.runtime.backend import Backend, HostAllocator

NAMES = {offset: name for name, offset in OFFSETS.items()}


class SparseBytes:
    """Byte-addressed memory, zero until written."""

    def __init__(self):
        self.pages = {}

    def read(self, a, n):
        out = bytearray()
        while n:
            page, off = divmod(a, 4096)
            k = min(n, 4096 - off)
            out += self.pages.get(page, bytes(4096))[off : off + k]
            a, n = a + k, n - k
        return bytes(out)

    def write(self, a, content):
        at = 0
        while at < len(content):
            page, off = divmod(a + at, 4096)
            k = min(len(content) - at, 4096 - off)
            self.pages.setdefault(page, bytearray(4096))[off : off + k] = content[at : at + k]
            at += k


class FakeBackend(Backend):
    """``hang``: opcodes that are never answered. ``shuffle`` seeds the order of completions."""

    has_backdoor = True

    def __init__(self, config, delay=50, shuffle=0, hang=()):
        self.config, self.delay, self.hang = config, delay, set(hang)
        self.rng = random.Random(shuffle)
        self.host, self.dram = SparseBytes(), SparseBytes()
        self.allocator = HostAllocator(0x1_0000, 1 << 30)
        self.now = 0
        self.regs = {}
        self.tables, self.params, self.dense_quant = {}, None, (0, 0)
        self.rings = [dict(sq_tail=0, sq_head=0, cq_tail=0, cq_head=0, phase=1) for _ in range(config.host.queue_pairs)]
        self.pending = []  # (time, queue, cid, status, dw0, dw1)
        self.ready = False
        self.commands = []
        self.closed = False

    # -- Backend
    @property
    def cycles(self):
        return self.now

    def mmio_read32(self, offset):
        self.now += 1
        name = NAMES.get(offset)
        if name == "design_id":
            return self.config.design_id
        if name == "csts":
            return int(self.ready)
        if name == "perf_lo":
            return 1000 + self.regs.get(0x200, 0)
        if name == "perf_hi":
            return 1
        return self.regs.get(offset, 0)

    def mmio_write32(self, offset, value):
        self.now += 1
        self.regs[offset] = value
        if offset >= DOORBELL_BASE:
            q, completion = divmod((offset - DOORBELL_BASE) // 4, 2)
            self.rings[q]["cq_head" if completion else "sq_tail"] = value
            if not completion and self.ready:
                self._fetch(q)
        elif NAMES.get(offset) == "cc":
            if value & 1 and not self.ready:
                self.ftl = FtlModel(self.config, read=self.dram.read)
            if not value & 1:
                self.pending.clear()
                for r in self.rings:
                    r.update(sq_tail=0, sq_head=0, cq_tail=0, cq_head=0, phase=1)
            self.ready = bool(value & 1)

    def host_alloc(self, nbytes):
        return self.allocator.alloc(nbytes)

    def host_free(self, address):
        self.allocator.free(address)

    def host_read(self, address, nbytes):
        return self.host.read(address, nbytes)

    def host_write(self, address, content):
        self.host.write(address, content)

    def dram_read(self, address, nbytes):
        return self.dram.read(address, nbytes)

    def dram_write(self, address, content):
        assert not self.ready, "the back door is for a disabled device"
        self.dram.write(address, content)

    def idle(self, cycles):
        self.now += cycles
        self._complete()

    def wait_irq(self, timeout):
        due = min((p[0] for p in self.pending), default=None)
        if not self._irq() and due is not None and due - self.now <= timeout:
            self.now = max(self.now, due)
            self._complete()
        if not self._irq():
            self.now += timeout
        return self._irq()

    def close(self):
        self.closed = True

    # -- rings
    def _irq(self):
        return any(r["cq_head"] != r["cq_tail"] for r in self.rings)

    def _queue(self, q, name):
        if name == "size":
            return self.regs[queue_register(q, "size")] + 1
        return self.regs[queue_register(q, name + "_lo")] | self.regs[queue_register(q, name + "_hi")] << 32

    def _fetch(self, q):
        r = self.rings[q]
        while r["sq_head"] != r["sq_tail"]:
            raw = self.host.read(self._queue(q, "sq_base") + r["sq_head"] * SQE_BYTES, SQE_BYTES)
            r["sq_head"] = (r["sq_head"] + 1) % self._queue(q, "size")
            opcode, _, cid, nsid, _, _, _, prp1, prp2, *dw = struct.unpack("<BBHIIIQQQIIIIII", raw)
            self.commands.append((q, opcode))
            if opcode in self.hang:
                continue
            status, dw0, dw1 = self._run(q, opcode, nsid, prp1, prp2, dw)
            self.pending.append((self.now + self.rng.randint(1, self.delay), q, cid, status, dw0, dw1))

    def _complete(self):
        for p in sorted(p for p in self.pending if p[0] <= self.now):
            self.pending.remove(p)
            _, q, cid, status, dw0, dw1 = p
            r = self.rings[q]
            entry = np.zeros((), CQE)
            entry["dw0"], entry["dw1"], entry["cid"], entry["sf"] = dw0, dw1, cid, int(status) << 1 | r["phase"]
            self.host.write(self._queue(q, "cq_base") + r["cq_tail"] * 16, entry.tobytes())
            r["cq_tail"] = (r["cq_tail"] + 1) % self._queue(q, "size")
            r["phase"] ^= r["cq_tail"] == 0

    def _runs(self, prp1, prp2, n):
        """(address, bytes) runs of a transfer, chained lists included."""
        first = min(n, HOST_PAGE - prp1 % HOST_PAGE)
        runs, left, entry_at = [(prp1, first)], n - first, None
        if left > HOST_PAGE:
            entry_at = prp2
        elif left:
            runs.append((prp2, left))
            left = 0
        while left:
            (entry,) = struct.unpack("<Q", self.host.read(entry_at, 8))
            assert entry, "PRP entry 0"
            assert entry % HOST_PAGE == 0, f"PRP entry {entry:#x}"
            if entry_at % HOST_PAGE == HOST_PAGE - 8 and left > HOST_PAGE:
                entry_at = entry
                continue
            runs.append((entry, min(left, HOST_PAGE)))
            left -= runs[-1][1]
            entry_at += 8
        return runs

    def _gather(self, prp1, prp2, n):
        return b"".join(self.host.read(a, k) for a, k in self._runs(prp1, prp2, n))

    # -- commands
    def _run(self, q, opcode, nsid, prp1, prp2, dw):
        ok = (Status.SUCCESS, 0, 0)
        if q == 0:
            if opcode == AdminOpcode.IDENTIFY:
                self.host.write(prp1, identify(self.config, dw[0]))
                return ok
            if opcode == AdminOpcode.TABLE_CREATE:
                return self._create(dw[0], self._gather(prp1, prp2, 320))
            if opcode == AdminOpcode.TABLE_DELETE:
                return ok if self.tables.pop(dw[0], None) else (Status.UNKNOWN_TABLE, dw[0], 0)
            if opcode == AdminOpcode.PROGRAM_LOAD:
                return self._program(self._gather(prp1, prp2, dw[0] * 4))
            return Status.INVALID_OPCODE, 0, 0
        if opcode in (Opcode.INFER, Opcode.LOOKUP):
            return self._query(opcode, prp1, prp2, dw)
        size, lba, count = self.config.lba_bytes, dw[0], (dw[2] & 0xFFFF) + 1
        assert nsid == 1
        if opcode == Opcode.FLUSH:
            for a, piece in self.ftl.image():
                self.dram.write(a, piece)
        elif opcode == Opcode.DSM:
            _, n, lba = struct.unpack("<IIQ", self.host.read(prp1, 16))
            for i in range(n):
                self.ftl.trim(lba + i)
        elif opcode == Opcode.WRITE:
            assert count <= self.config.host.mdts_pages
            content = self._gather(prp1, prp2, count * size)
            for i in range(count):
                self.ftl.write(lba + i, content[i * size : (i + 1) * size])
        elif opcode == Opcode.READ:
            content, at = b"".join(self.ftl.read(lba + i) for i in range(count)), 0
            for a, k in self._runs(prp1, prp2, len(content)):
                self.host.write(a, content[at : at + k])
                at += k
        return ok

    def _create(self, table, raw):
        w = np.frombuffer(raw, "<u4")
        s = w.view("<i4")
        extents = tuple(Extent(*(int(v) for v in w[EXTENT_WORD + 4 * i : EXTENT_WORD + 4 * i + 3])) for i in range(w[10]))
        spec = TableSpec(int(w[0]), int(w[1]), RowFormat(int(w[2]) & 255), PoolMode(int(w[2]) >> 8), int(s[7]), int(w[11]),
                         int(w[8]), int(s[9]), extents)
        try:
            spec.validate(self.config)
        except DataError:
            return Status.BAD_TABLE, 0, 0
        for t, other in self.tables.items():
            for a in spec.extents:
                if t != table and any(a.lba < b.lba + b.pages and b.lba < a.lba + a.pages for b in other.extents):
                    return Status.OVERLAPPING_EXTENTS, t, 0
        self.tables[table] = spec
        return Status.SUCCESS, 0, 0

    def _program(self, image):
        config, graph = self.config, self.config.mlp.graph
        at, records = 0, {}
        while at < len(image):
            target, units, address = struct.unpack_from("<IIQ", image, at)
            records[target if target != DRAM else ("dram", address)] = image[at + 16 : at + 16 + units * 16]
            at += 16 + units * 16
        expected = expected_records(config)
        if {k: len(v) // 16 for k, v in records.items() if isinstance(k, int)} != expected:
            return Status.BAD_PROGRAM, 0, 0
        weights = {}
        for c in cores(graph):  # word by word, as a core steps through them
            raw = records[c.index if c.weights == "onchip" else ("dram", dram_weight_address(config, c))]
            word = weight_word_beats(c, config.beat_bytes) * config.beat_bytes
            w = np.zeros((c.row_blocks * c.kr, c.column_blocks * c.kc), np.int64)
            for step in range(c.steps):
                r, k = divmod(step, c.column_blocks) if c.scan == "row" else divmod(step, c.row_blocks)[::-1]
                block = np.frombuffer(raw[step * word : step * word + c.word_bytes], f"<i{c.weight_bits // 8}")
                w[r * c.kr : (r + 1) * c.kr, k * c.kc : (k + 1) * c.kc] = block.reshape(c.kr, c.kc)
            assert not w[c.rows :].any()
            assert not w[:, c.columns :].any()
            weights.setdefault(c.node, []).append(w[: c.rows, : c.columns])
        fc, scale = {}, {}
        for i, n in enumerate(graph):
            if n.kind == "fc":
                e = np.frombuffer(records[EPILOGUE + i], [("bias", "<i8"), ("mult", "<u4"), ("shift", "<u4")])
                fc[n.name] = FcParams(np.concatenate(weights[n.name], 1), e["bias"].astype(np.int64),
                                      e["mult"].astype(np.int64), e["shift"].astype(np.int64))
            elif n.kind in ("dot", "mul"):
                scale[n.name] = ScaleParams(*struct.unpack_from("<II", records[INTERACTION + i], 8))
            elif n.kind == "dense":
                self.dense_quant = struct.unpack_from("<Ii", records[DENSE_QUANT])
        self.params = MlpParams(fc, scale, struct.unpack_from("<i", records[LOGIT_FORMAT])[0])
        return Status.SUCCESS, 0, 0

    def _row(self, spec, index):
        page, slot = divmod(index, spec.rows_per_page(self.config))
        e = next(e for e in spec.extents if e.first_page <= page < e.first_page + e.pages)
        at = slot * spec.stride_beats(self.config) * self.config.beat_bytes
        return self.ftl.read(e.lba + page - e.first_page)[at : at + spec.format.row_bytes(spec.dim)]

    def _query(self, opcode, prp1, prp2, dw):
        words = np.frombuffer(self._gather(prp1, prp2, dw[0] * 4), "<u4")
        batch, weighted, n_tables, n_dense = dw[1] & 0xFFFF, bool(dw[1] >> 16 & 1), dw[2] & 255, dw[2] >> 16
        out_addr = dw[4] | dw[5] << 32
        if opcode == Opcode.INFER and self.params is None:
            return Status.NO_PROGRAM, 0, 0
        check = check_query(words, self.config, self.tables, opcode=opcode, batch=batch, n_tables=n_tables,
                            n_dense=n_dense, weighted=weighted, out_addr=out_addr)
        if check.status != Status.SUCCESS:
            return check
        samples = unpack_queries(words, batch, n_tables, n_dense, weighted)
        pooled = []
        for t in range(n_tables):
            spec = self.tables[t]
            raw = b"".join(self._row(spec, int(i)) for s in samples for i in s.bags[t])
            rows = np.frombuffer(raw, np.uint8).reshape(-1, spec.format.row_bytes(spec.dim))
            w = np.concatenate([s.weights[t] for s in samples]) if weighted else None
            out, info = pool_bags(spec, self.config.lookup.acc_bits, rows, np.array([len(s.bags[t]) for s in samples]), w)
            if info.not_finite.any():
                return Status.ROW_NOT_FINITE, 0, t
            if info.overflow.any():
                return Status.POOL_OVERFLOW, 0, t
            pooled.append(out)
        if opcode == Opcode.LOOKUP:
            self.host.write(out_addr, np.concatenate(pooled, 1).astype("<f4").tobytes())
            return Status.SUCCESS, 0, 0
        bits = self.config.mlp.act_bits
        pooled_q = [quantize_fp32(p, self.tables[t].quant_mult, self.tables[t].quant_shift, bits)
                    for t, p in enumerate(pooled)]
        dense = quantize_fp32(np.stack([s.dense for s in samples]), *self.dense_quant, bits) if n_dense else None
        self.host.write(out_addr, run_graph(self.config.mlp.graph, bits, self.params, dense, pooled_q)[1].tobytes())
        return Status.SUCCESS, 0, 0
