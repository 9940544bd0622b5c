"""Flash channels as the lookup engine sees them, for test benches of the Amaranth simulator."""

from __future__ import annotations

import random

from nearflash_hw.interfaces import FlashOp

from ..bench.streams import StreamSink, StreamSource

__all__ = ["FlashModel", "ppn_of"]


def ppn_of(config, channel, cmd):
    """The PPN a flash command on ``channel`` addresses: {block, page, die, channel}."""
    f = config.flash
    return ((cmd["block"] * f.pages + cmd["page"]) * f.channel_planes + cmd["die"]) * f.channels + channel


class FlashModel:
    """All channels: READs finish after a random number of cycles, in any order, one vector at a time per channel.

    ``page(ppn)`` gives the bytes of a page; ``media(ppn)`` says which pages can't be read."""

    def __init__(self, config, commands, outputs, page, media=lambda ppn: False, latency=40, stall=0.0, seed=0):
        self.config, self.page, self.media, self.rng = config, page, media, random.Random(seed)
        self.latency, self.active, self.peak = latency, set(), 0
        self.reads = 0
        self.waiting = [[] for _ in commands]
        self.out = [StreamSource(o, stall=stall, seed=seed + k) for k, o in enumerate(outputs)]
        self.sinks = [StreamSink(c, stall, seed + 9 + k, on_item=lambda i, k=k: self.command(k, i))
                      for k, c in enumerate(commands)]
        self.actors = [*self.out, *self.sinks, self.clock]

    def command(self, channel, cmd):
        assert cmd["op"] == FlashOp.READ
        assert cmd["tag"] not in self.active, "tag used twice"
        assert cmd["beats"] >= 1
        assert cmd["column"] + cmd["beats"] <= self.config.page_beats
        self.active.add(cmd["tag"])
        self.peak = max(self.peak, len(self.active))
        self.reads += 1
        self.waiting[channel].append([self.rng.randint(1, self.latency), cmd])

    async def clock(self, ctx):
        beat = self.config.beat_bytes
        while True:
            await ctx.tick()
            for channel, queue in enumerate(self.waiting):
                for w in queue:
                    w[0] -= 1
                ready = [w for w in queue if w[0] <= 0]
                if not ready or not self.out[channel].drained:
                    continue
                w = self.rng.choice(ready)
                queue.remove(w)
                cmd = w[1]
                ppn = ppn_of(self.config, channel, cmd)
                raw = self.page(ppn)
                for k in range(cmd["beats"]):
                    a = (cmd["column"] + k) * beat
                    self.out[channel].items.append({
                        "data": int.from_bytes(raw[a : a + beat], "little"), "tag": cmd["tag"],
                        "last": int(k == cmd["beats"] - 1), "error": int(self.media(ppn))})
                self.active.discard(cmd["tag"])  # free again at the earliest with the last beat
