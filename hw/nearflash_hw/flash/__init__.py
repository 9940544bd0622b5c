"""The flash back end: a :class:`~nearflash_hw.flash.channel.Channel` per flash channel, the dies of all emulated in DRAM.

A command enters a channel's :mod:`~.queue`, waits for its die (:mod:`~.window`: not always in turn), crosses the shared
:mod:`~.bus`, and keeps its :mod:`~.die` busy for the array time while :mod:`~.array`, behind one :mod:`~.server` for all
channels, moves the page's bytes between DRAM and the page register. Behavioural reference: :mod:`nearflash.reference.flash`.
"""

from .channel import Channel
from .server import ArrayServer

__all__ = ["ArrayServer", "Channel"]
