"""Vivado's scripts: from sources to a timing check and a bitstream.

On a Zynq-7000 the shell instantiates the processing system itself, so that Vivado and the open flow take the same Verilog,
without a project. On an UltraScale+ the vendor's flow wants its PS IP (its primitive needs attributes that only the IP
computes): a project with a block design in which the shell is one module.
"""

from __future__ import annotations

from nearflash.contract import DeviceConfig
from nearflash.contract.boards import Board
from nearflash.contract.processing import ProcessingSystem

__all__ = ["RESULT_FOLDER", "SCRIPT", "vivado_script"]

SCRIPT = "build_vivado.tcl"
RESULT_FOLDER = "run/vivado"
#: Numbers under which the PS8's parameters know its ports (PG201, "PL AXI interface"), and their clocks.
PS8_PORTS = {"M_AXI_HPM0_FPD": (0, "maxihpm0_fpd_aclk"), "S_AXI_HP0_FPD": (2, "saxihp0_fpd_aclk"),
             "S_AXI_HP1_FPD": (3, "saxihp1_fpd_aclk")}
WINDOW_BYTES = 0x4_0000  # of the window, for three blocks of 64 KiB: a segment is a power of two

_HEAD = """\
# {title}
# Run with: vivado -mode batch -source {script}
# Results: {results}/{stem}.bit, timing.rpt, utilization.rpt. Ends with an error, and no .bit, where timing is not met.
set stem {{{stem}}}
set part {{{part}}}
set here [file dirname [file normalize [info script]]]
set results [file join $here run vivado]
file mkdir $results

proc step {{name}} {{ puts "nearflash: $name" }}

# Worst setup and hold slack of the routed design must not be negative.
proc check_timing_met {{}} {{
    foreach kind {{setup hold}} {{
        set path [get_timing_paths -max_paths 1 -$kind]
        if {{[llength $path] == 0}} {{ error "no $kind path is constrained: the clock is missing" }}
        set slack [get_property SLACK $path]
        puts "nearflash: worst $kind slack $slack ns"
        if {{$slack < 0}} {{ error "timing is not met: worst $kind slack is $slack ns at {mhz:g} MHz" }}
    }}
}}
"""

_PS7 = """
read_verilog [file join $here $stem.v]
read_xdc [file join $here $stem.xdc]
step synth_design
synth_design -top nearflash_top -part $part
step opt_design
opt_design
step place_design
place_design
step phys_opt_design
phys_opt_design
step route_design
route_design
report_timing_summary -file [file join $results timing.rpt]
report_utilization -hierarchical -hierarchical_depth 3 -file [file join $results utilization.rpt]
report_drc -file [file join $results drc.rpt]
check_timing_met
step write_bitstream
write_bitstream -force [file join $results $stem.bit]
step done
"""

_PS8 = """
step create_project
create_project -force nearflash [file join $results project] -part $part
add_files -norecurse [file join $here $stem.v]
add_files -fileset constrs_1 -norecurse [file join $here $stem.xdc]
update_compile_order -fileset sources_1

# The board's preset sets memory and pins of the processing system, which the boot image has set up already: without the
# vendor's board files the overlay is the same.
proc newest_ip {{name}} {{
    set found [get_ipdefs -filter "VLNV =~ xilinx.com:ip:$name:* && UPGRADE_VERSIONS == {{}}"]
    if {{[llength $found] == 0}} {{ error "this Vivado has no IP $name" }}
    return [lindex $found end]
}}
create_bd_design shell
set ps [create_bd_cell -type ip -vlnv [newest_ip zynq_ultra_ps_e] ps]
set_property -dict [list \\
{properties}
] $ps
create_bd_cell -type module -reference nearflash_shell nearflash_shell_0
create_bd_cell -type ip -vlnv [newest_ip proc_sys_reset] reset

# One clock for all. The shell's ports have the widths of the processing system's.
foreach pin {{{clocks}}} {{ connect_bd_net [get_bd_pins ps/pl_clk0] [get_bd_pins $pin] }}
connect_bd_net [get_bd_pins ps/pl_resetn0] [get_bd_pins reset/ext_reset_in]
connect_bd_net [get_bd_pins reset/peripheral_reset] [get_bd_pins nearflash_shell_0/rst]
connect_bd_net [get_bd_pins nearflash_shell_0/irq] [get_bd_pins ps/pl_ps_irq0]
connect_bd_intf_net [get_bd_intf_pins ps/{master}] [get_bd_intf_pins nearflash_shell_0/s_axi]
connect_bd_intf_net [get_bd_intf_pins nearflash_shell_0/m_axi_host] [get_bd_intf_pins ps/{host}]
connect_bd_intf_net [get_bd_intf_pins nearflash_shell_0/m_axi_dram] [get_bd_intf_pins ps/{dram}]
assign_bd_address -offset {window:#x} -range {range:#x} -target_address_space [get_bd_addr_spaces ps/Data] \\
    [get_bd_addr_segs nearflash_shell_0/s_axi/reg0]
assign_bd_address
validate_bd_design
save_bd_design

set design [get_files shell.bd]
generate_target all $design
add_files -norecurse [make_wrapper -files $design -top]
set_property top shell_wrapper [current_fileset]
update_compile_order -fileset sources_1

foreach run {{synth_1 impl_1}} {{
    step $run
    launch_runs $run -jobs 2
    wait_on_run $run
    if {{[get_property PROGRESS [get_runs $run]] ne "100%"}} {{
        error "$run ended early: [get_property STATUS [get_runs $run]]"
    }}
}}
open_run impl_1
report_timing_summary -file [file join $results timing.rpt]
report_utilization -hierarchical -hierarchical_depth 3 -file [file join $results utilization.rpt]
report_drc -file [file join $results drc.rpt]
check_timing_met
step write_bitstream
write_bitstream -force [file join $results $stem.bit]
step done
"""


def vivado_script(config: DeviceConfig, board: Board, ps: ProcessingSystem, stem: str) -> str:
    """Tcl that makes ``run/vivado/<stem>.bit`` in the script's folder out of ``<stem>.v`` and ``<stem>.xdc`` there."""
    head = _HEAD.format(title=f"{config.name} on {board.name}", script=SCRIPT, results=RESULT_FOLDER, stem=stem,
                        part=board.part.order_code, mhz=config.clock_mhz)
    return head + (_PS7 if ps.axi == 3 else _block_design(config, ps))


def _block_design(config: DeviceConfig, ps: ProcessingSystem) -> str:
    host, dram = ps.slaves
    a, b = ps.divisors(config.clock_mhz)
    properties = {"PSU__FPGA_PL0_ENABLE": 1, "PSU__CRL_APB__PL0_REF_CTRL__SRCSEL": "IOPLL",
                  "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": f"{ps.pll_mhz / (a * b):.6f}",
                  "PSU__USE__M_AXI_GP0": 1, "PSU__USE__M_AXI_GP1": 0, "PSU__USE__M_AXI_GP2": 0, "PSU__USE__IRQ0": 1,
                  f"PSU__MAXIGP{PS8_PORTS[ps.master][0]}__DATA_WIDTH": 32}
    for port in ps.slaves:
        number = PS8_PORTS[port][0]
        properties |= {f"PSU__USE__S_AXI_GP{number}": 1,
                       f"PSU__SAXIGP{number}__DATA_WIDTH": ps.slave_bits(config.beat_bytes)}
    clocks = [f"ps/{PS8_PORTS[p][1]}" for p in (ps.master, host, dram)]
    return _PS8.format(properties="\n".join(f"    CONFIG.{k} {{{v}}} \\" for k, v in properties.items()), master=ps.master,
                       host=host, dram=dram, window=ps.window, range=WINDOW_BYTES,
                       clocks=" ".join([*clocks, "nearflash_shell_0/clk", "reset/slowest_sync_clk"]))
