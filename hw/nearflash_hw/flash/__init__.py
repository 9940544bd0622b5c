"""The flash back end: one :class:`~nearflash_hw.flash.channel.Channel` per flash channel, its dies emulated in DRAM.

A command enters a channel's :mod:`~.queue`, waits for its die, crosses the shared :mod:`~.bus`, and keeps its
:mod:`~.die` busy for the array time while :mod:`~.array` moves the page's bytes between DRAM and the page register.
Behavioural reference: :mod:`nearflash.reference.flash`.
"""

from .channel import Channel

__all__ = ["Channel"]
