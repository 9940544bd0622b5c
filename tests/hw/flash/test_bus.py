"""The channel bus alone: phases of several dies, their bytes and their time."""

import random

import pytest
from nearflash.contract import DeviceConfig
from nearflash_hw.flash.bus import ChannelBus
from nearflash_hw.interfaces import FlashOp
from nearflash_sim.bench import StreamSink, StreamSource, reused, simulate

DIES = 4


class Dies:
    """Dies with their ``jobs``, a command phase and a data phase each, and the channel's page memory. The bus tells nobody
    whose beats it takes, so one die at a time asks for a data-in phase: the first of ``programs``."""

    def __init__(self, dut, config, rng, jobs, block_in):
        self.dut, self.config, self.rng, self.jobs, self.block_in = dut, config, rng, jobs, block_in
        self.memory = [rng.getrandbits(8 * config.beat_bytes) for _ in range(DIES * config.raw_page_beats)]
        self.phase = ["command"] * DIES
        self.programs = []
        self.packets = [[], []]  # what must come out, by path: (tag, beats, error)
        self.phases = []  # (which, die) in the order in which they ended

    @property
    def over(self):
        return not any(self.jobs)

    def region(self, die):
        return self.memory[die * self.config.raw_page_beats :][: self.config.raw_page_beats]

    def show(self, ctx):
        for name in ("command", "in", "out"):
            wants = [self.jobs[d] and self.phase[d] == name and (name != "in" or self.programs[0] == d) for d in range(DIES)]
            ctx.set(getattr(self.dut, f"want_{name}"), sum(bool(w) << d for d, w in enumerate(wants)))
        ctx.set(self.dut.commands, [jobs[0]["command"] if jobs else {} for jobs in self.jobs])
        for name in ("path", "error"):
            ctx.set(getattr(self.dut, f"{name}s"), sum(jobs[0][name] << d for d, jobs in enumerate(self.jobs) if jobs))

    def ask_for_data(self, die):
        """The command phase is over."""
        first = self.jobs[die][0]
        if first["command"]["op"] == FlashOp.READ:
            self.phase[die] = "out"
        else:
            self.phase[die] = "in"
            self.programs.append(die)
            if len(self.programs) == 1:
                self.block_in.items += first["page"]

    def end(self, die, which):
        assert self.phase[die] == which
        self.phases.append((which, die))
        self.phase[die] = "command"
        self.jobs[die].pop(0)
        if which == "in":
            self.programs.pop(0)
            if self.programs:
                self.block_in.items += self.jobs[self.programs[0]][0]["page"]

    async def process(self, ctx):
        dut = self.dut
        self.show(ctx)
        async for _, _, command, written, started, sent, reads, read_at, writes, write_at, data in ctx.tick().sample(
                dut.command_done, dut.in_done, dut.out_started, dut.out_done, dut.read_en, dut.read_addr, dut.write_en,
                dut.write_addr, dut.write_data):
            assert (command | written | sent).bit_count() <= 1, "one phase at a time"
            if writes:
                self.memory[write_at] = data
            ctx.set(dut.read_data, self.memory[read_at] if reads else self.rng.getrandbits(8 * self.config.beat_bytes))
            for d in range(DIES):
                if command >> d & 1:
                    assert self.phase[d] == "command"
                    self.phases.append(("command", d))
                    self.ask_for_data(d)
                if started >> d & 1:
                    assert self.phase[d] == "out"
                    c = self.jobs[d][0]["command"]
                    beats = self.region(d)[c["column"] :][: c["beats"]]
                    self.packets[self.jobs[d][0]["path"]].append((c["tag"], beats, self.jobs[d][0]["error"]))
                    self.phase[d] = "sending"
                if written >> d & 1:
                    self.end(d, "in")
                if sent >> d & 1:
                    self.end(d, "sending")
            self.show(ctx)


def random_job(rng, config, die, tag):
    column = rng.randrange(config.raw_page_beats)
    rest = config.raw_page_beats - column
    c = {"op": rng.choice([FlashOp.READ, FlashOp.READ, FlashOp.PROGRAM]), "die": die, "block": 0, "page": 0,
         "column": column, "beats": rng.choice([1, rest, rng.randint(1, rest)]), "tag": tag}
    page = [rng.getrandbits(8 * config.beat_bytes) for _ in range(config.raw_page_beats)]
    return {"command": c, "path": rng.randrange(2), "error": rng.randrange(2), "page": page}


@pytest.mark.parametrize("stall", [0.0, 0.4])
@pytest.mark.parametrize("bus_page_ns", [1, 1500])
def test_every_phase_moves_its_own_bytes_at_the_buss_rate(stall, bus_page_ns):
    config = DeviceConfig.preset("tiny", dies=DIES, bus_page_ns=bus_page_ns, t_command_ns=30)
    dut, rng = reused(ChannelBus, config), random.Random(bus_page_ns)
    jobs = [[random_job(rng, config, d, (d + i) % 8) for i in range(3)] for d in range(DIES)]
    last_pages = {d: [j["page"] for j in jobs[d] if j["command"]["op"] == FlashOp.PROGRAM][-1:] for d in range(DIES)}
    want_phases = sorted((w, d) for d in range(DIES) for j in jobs[d]
                         for w in ("command", "sending" if j["command"]["op"] == FlashOp.READ else "in"))
    block_in = StreamSource(dut.block_in, [], stall, seed=1)
    dies = Dies(dut, config, rng, jobs, block_in)
    sinks = [StreamSink(port, stall, seed=2 + k) for k, port in enumerate((dut.lookup_data, dut.block_data))]
    beats = lambda: sum(len(b) for packets in dies.packets for _, b, _ in packets)  # noqa: E731
    simulate(dut, [dies, block_in, *sinks], max_cycles=8000,
             until=lambda: dies.over and sum(len(s.items) for s in sinks) >= beats())
    assert block_in.drained
    assert sorted(dies.phases) == want_phases
    q16 = max(config.bus_beat_q16, 1 << 16)
    due = lambda k: -(-k * q16 // 65536)  # noqa: E731
    for sink, packets in zip(sinks, dies.packets, strict=True):
        assert [(i["tag"], i["data"], i["last"], i["error"]) for i in sink.items] == [
            (tag, data, int(k == len(content) - 1), error) for tag, content, error in packets
            for k, data in enumerate(content)]
        at = 0
        for _, content, _ in packets:
            cycles, at = sink.cycles[at : at + len(content)], at + len(content)
            if not stall:
                assert [c - cycles[0] for c in cycles] == [due(k + 1) - due(1) for k in range(len(content))]
    for d, pages in last_pages.items():
        if pages:
            assert dies.region(d) == pages[0]


def test_dies_take_turns_and_commands_go_first():
    """All dies ask at once: four command phases in turn, then as many data phases, then again."""
    config = DeviceConfig.preset("tiny", dies=DIES)
    dut, rng = reused(ChannelBus, config), random.Random(1)
    jobs = [[random_job(rng, config, d, d) for _ in range(2)] for d in range(DIES)]
    for j in (j for of_die in jobs for j in of_die):
        j["command"].update(op=FlashOp.READ, column=0, beats=3)
    dies = Dies(dut, config, rng, jobs, StreamSource(dut.block_in))
    simulate(dut, [dies, StreamSink(dut.lookup_data), StreamSink(dut.block_data)], until=lambda: dies.over, max_cycles=1000)
    commands = [d for which, d in dies.phases if which == "command"]
    assert dies.phases[:DIES] == [("command", d) for d in range(DIES)]
    assert sorted(commands[DIES:]) == [*range(DIES)]
    assert [d for which, d in dies.phases if which == "sending"] == [*range(DIES)] * 2


def test_a_held_block_path_keeps_only_itself_waiting():
    config = DeviceConfig.preset("tiny", dies=DIES)
    dut, rng = reused(ChannelBus, config), random.Random(2)
    jobs = [[random_job(rng, config, d, d)] for d in range(DIES)]
    for d, (j,) in enumerate(jobs):
        j["command"].update(op=FlashOp.READ, column=d, beats=2)
        j["path"] = d & 1
    dies = Dies(dut, config, rng, jobs, StreamSource(dut.block_in))
    sinks = [StreamSink(dut.lookup_data), StreamSink(dut.block_data)]
    held = []

    async def hold(ctx):
        ctx.set(dut.block_hold, 1)
        await ctx.tick().repeat(200)
        held.append([len(s.items) for s in sinks])
        ctx.set(dut.block_hold, 0)

    simulate(dut, [dies, hold, *sinks], until=lambda: dies.over and bool(held), max_cycles=1000)
    assert held == [[4, 0]]
    assert [len(s.items) for s in sinks] == [4, 4]
