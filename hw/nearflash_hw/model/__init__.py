"""What :func:`~nearflash_hw.verilog.to_verilog` adds to a design so that a compiled simulation of it is fast and exact.

Most of a device rests most of the time: its dies wait for their arrays, its rooms for the dies. In the *gated* model every
block has a clock of its own, and the simulation harness clocks a block only when it is *awake*: when its state changed at
its last clock edge, or its inputs now differ from those it saw there. A block that is neither would compute the state it
already has, so leaving it out is exact, whatever the block is: nothing has to be known about it.

* A component class with ``model_clock = "own"`` is a block, with all below it that isn't one itself. So is the component
  at the top.
* A component class with ``model_clock = "free"`` only counts, and is clocked in every cycle. While all blocks rest and the
  memories too, the harness passes many cycles by one edge: :func:`~.platform.elapsed` tells such a component how many, and
  the harness never goes beyond what is left in a register called ``remaining`` (0: nothing is counted down).

For a timeline, components show with :func:`~.platform.observe` what they do; the *observed* model reports each change of it,
with its cycle (``nf_seen``, a function of the harness). Every other form of the design is the same with and without.

:mod:`.platform` is what components see, :mod:`.gating` what becomes of the Verilog.
"""

from .platform import ModelPlatform, elapsed, observe

__all__ = ["ModelPlatform", "elapsed", "observe"]
