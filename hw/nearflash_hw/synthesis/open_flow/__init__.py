"""The open flow for 7-series parts: Yosys, nextpnr-xilinx, project X-Ray.

What its tools reject or get wrong without saying so is dealt with here, for `nearflash timing` and for the scripts of
`nearflash build` alike: :mod:`.passes` gives a netlist that they take, :mod:`.netlist_rules`, :mod:`.route_log` and
:mod:`.bitstream` check one, a router's log and a bitstream. These three import nothing but Python's own library and are
programs too: a build's folder gets a copy.
"""

from __future__ import annotations

__all__ = ["CAVEAT"]

#: Of every frequency that nextpnr-xilinx reports.
CAVEAT = ("timing by project X-Ray's database: wires, LUTs and carry chains of the slow corner; flip-flops a flat 0.1 ns "
          "(0.456 really); DSP slices, block RAM, LUT RAM and shift registers are not timed at all")
