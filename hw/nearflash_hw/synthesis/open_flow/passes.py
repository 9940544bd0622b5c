"""Yosys passes to a netlist that nextpnr-xilinx takes."""

from __future__ import annotations

from collections.abc import Sequence

from ..yosys import CONTROL_SET_THRESHOLD

__all__ = ["LUT_RAMS", "LUT_RAMS_FILE", "synthesis_passes"]

LUT_RAMS_FILE = "lut_rams.txt"
#: Yosys' own library of distributed memories (lutrams_xc5v.txt), without the ones that end in cells that nextpnr-xilinx
#: rejects (RAM64X1S, RAM256X1S: memories of one port) or that nobody has seen it route. A memory of one port takes one of
#: two, whose second is left open.
LUT_RAMS = """\
ram distributed $__XILINX_LUTRAM_DP_ {
	cost 8;
	widthscale;
	option "ABITS" 5 { abits 5; widths 4 global; }
	option "ABITS" 6 { abits 6; widths 2 global; }
	option "ABITS" 7 { abits 7; widths 1 global; }
	init no_undef;
	prune_rom;
	port arsw "RW" { clock posedge; }
	port ar "R" { }
}
ram distributed $__XILINX_LUTRAM_QP_ {
	cost 7;
	widthscale;
	option "ABITS" 5 { abits 5; widths 2 global; }
	option "ABITS" 6 { abits 6; widths 1 global; }
	init no_undef;
	prune_rom;
	port arsw "RW" { clock posedge; }
	port ar "R0" "R1" "R2" { }
}
ram distributed $__XILINX_LUTRAM_SDP_ {
	cost 8;
	widthscale 7;
	option "ABITS" 5 { abits 5; widths 6 global; }
	option "ABITS" 6 { abits 6; widths 3 global; }
	init no_undef;
	prune_rom;
	port sw "W" { clock posedge; }
	port ar "R" { }
}
"""
#: synth_xilinx passes -D HAS_CASCADE too: pairs of RAMB36 that make 64K x 1, which the router can't join.
BLOCK_RAMS = "-lib +/xilinx/brams_xc4v.txt -D HAS_SIZE_36 -D HAS_CONFLICT_BUG -D HAS_MIXED_WIDTH_SDP"


def synthesis_passes(read: Sequence[str], top: str, netlist: str) -> list[str]:
    """From ``read`` passes to the JSON file ``netlist`` of module ``top``, flattened, for a 7-series part.

    File :data:`LUT_RAMS_FILE` must hold :data:`LUT_RAMS`. No shift registers (cascades of them can't be routed), no control
    set of fewer flip-flops than Vivado would keep (the placer doesn't end over many), no ``x``, no leftovers of flattening.
    """
    synth = f"synth_xilinx -family xc7 -flatten -abc9 -nosrl -top {top} -run"
    least = CONTROL_SET_THRESHOLD["xc7"]
    return [*read, f"hierarchy -top {top}", "flatten -noscopeinfo", f"{synth} begin:map_memory",
            f"memory_libmap -lib {LUT_RAMS_FILE} {BLOCK_RAMS} -logic-cost-rom 0.015625",
            "techmap -map +/xilinx/lutrams_xc5v_map.v", "techmap -map +/xilinx/brams_xc6v_map.v",
            f"{synth} map_ffram:map_ffs",
            f"dfflegalize -mince {least} -minsrst {least} "
            "-cell $_DFFE_?P?P_ 01 -cell $_SDFFE_?P?P_ 01 -cell $_DLATCH_?P?_ 01",
            f"{synth} map_ffs:", "delete t:$scopeinfo", "setundef -zero", "clean", f"write_json {netlist}"]
