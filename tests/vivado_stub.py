"""Stands in for Vivado in a Tcl interpreter: knows the commands that the scripts use, and no others, with their options;
keeps as much of a design's state as tells whether a step may come now and whether what is connected exists."""

import re
import tkinter
from pathlib import Path


class Refused(Exception):
    """What Vivado would end the script for."""


def need(condition, text):
    if not condition:
        raise Refused(text)


#: Pins and interfaces of a zynq_ultra_ps_e by the parameter that makes them, with widths where they have one.
PS8 = {"PSU__USE__M_AXI_GP0": ("maxihpm0_fpd_aclk", "M_AXI_HPM0_FPD"), "PSU__USE__M_AXI_GP1": ("maxihpm1_fpd_aclk", ""),
       "PSU__USE__M_AXI_GP2": ("maxihpm0_lpd_aclk", ""), "PSU__USE__S_AXI_GP2": ("saxihp0_fpd_aclk", "S_AXI_HP0_FPD"),
       "PSU__USE__S_AXI_GP3": ("saxihp1_fpd_aclk", "S_AXI_HP1_FPD"), "PSU__USE__IRQ0": ("pl_ps_irq0", ""),
       "PSU__FPGA_PL0_ENABLE": ("pl_clk0", "")}
PS8_WIDTHS = {"M_AXI_HPM0_FPD": "PSU__MAXIGP0__DATA_WIDTH", "S_AXI_HP0_FPD": "PSU__SAXIGP2__DATA_WIDTH",
              "S_AXI_HP1_FPD": "PSU__SAXIGP3__DATA_WIDTH"}
PS8_OTHERS = {"PSU__CRL_APB__PL0_REF_CTRL__SRCSEL", "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ", *PS8_WIDTHS.values()}


class Vivado:
    """``slack``: worst setup and hold slack of the routed design. ``done``: commands in order, ``wrote``: bitstreams."""

    def __init__(self, slack=("0.123", "0.010"), progress="100%"):
        self.slack, self.progress = dict(zip(("-setup", "-hold"), slack, strict=True)), progress
        self.done, self.wrote, self.said = [], [], []
        self.sources, self.constraints, self.stage, self.part = [], [], "", ""
        self.cells, self.properties, self.nets, self.intf_nets, self.segments = {}, {}, [], [], {}
        self.project, self.validated, self.top, self.ran = False, False, "", []
        self.tcl = tkinter.Tcl()
        self.tcl.eval("proc unknown args { error \"invalid command name: $args\" }; rename exec {}")
        for name in dir(self):
            if name.startswith("do_"):
                self.tcl.createcommand(name[3:], self._command(name[3:], getattr(self, name)))

    def _command(self, name, method):
        def call(*args):
            self.done.append((name, *args))
            try:
                return method(*args) or ""
            except Exception as e:  # Tcl would make an error without a text of it
                self.raised = e
                raise
        return call

    def source(self, script: Path):
        """Run ``script``. Raises :class:`Refused`, or the ``TclError`` that the script itself ends with."""
        self.eval(f"source {{{script}}}")

    def eval(self, text):
        self.raised = None
        try:
            self.tcl.eval(text)
        except tkinter.TclError:
            if self.raised is not None:
                raise self.raised from None
            raise

    def split(self, text):
        return self.tcl.splitlist(text)

    def options(self, args, flags=(), values=()):
        """(named options, positional arguments); raises for any other option."""
        named, rest, args = {}, [], list(args)
        while args:
            a = args.pop(0)
            if a in values:
                need(args, f"{a} needs a value")
                named[a] = args.pop(0)
            elif a in flags:
                named[a] = True
            else:
                need(not a.startswith("-"), f"unknown option {a}")
                rest.append(a)
        return named, rest

    # -- without a project

    def do_puts(self, *args):
        self.said.append(args[-1])

    def do_read_verilog(self, path):
        self.sources.append(Path(path).read_text())

    def do_read_xdc(self, path):
        self.check_xdc(Path(path).read_text())

    def check_xdc(self, text):
        """XDC is a subset of Tcl: here the three commands that the constraints use."""
        for line in text.splitlines():
            known = re.fullmatch(r"#.*|create_clock -name \w+ -period [\d.]+ \[get_pins -of_objects \[get_cells "
                                 r"-hierarchical -filter \{REF_NAME == PS7\}\] -filter \{REF_PIN_NAME == FCLKCLK\[0\]\}\]"
                                 r"|set_property BITSTREAM\.CONFIG\.USERID 0x[0-9a-f]{8} \[current_design\]", line)
            need(known, f"constraint {line}")
            self.constraints.append(line)

    def module(self, name):
        found = [m for text in self.sources for m in re.findall(rf"^module {name}\b.*?^endmodule", text, re.M | re.S)]
        need(len(found) == 1, f"module {name} is not in the sources")
        return found[0]

    def advance(self, after, to):
        need(self.stage == after, f"{to} does not follow {self.stage or 'nothing'}")
        self.stage = to

    def do_synth_design(self, *args):
        named, rest = self.options(args, values=("-top", "-part"))
        need(not rest and named["-part"].startswith("xc"), "synth_design -top -part")
        text = self.module(named["-top"])
        need(not re.search(r"^\s*(input|output|inout)\b", text, re.M), "a port has no pin")
        need(any("create_clock" in c for c in self.constraints), "no clock is constrained")
        self.part = named["-part"]
        self.advance("", "synthesised")

    def do_opt_design(self):
        self.advance("synthesised", "optimised")

    def do_place_design(self):
        self.advance("optimised", "placed")

    def do_phys_opt_design(self):
        need(self.stage == "placed", "phys_opt_design before place_design")

    def do_route_design(self):
        self.advance("placed", "routed")

    def report(self, *args, flags=(), values=()):
        named, rest = self.options(args, flags, (*values, "-file"))
        need(self.stage == "routed" and not rest and Path(named["-file"]).parent.is_dir(), "report of a routed design")
        Path(named["-file"]).write_text("report\n")

    def do_report_timing_summary(self, *args):
        self.report(*args)

    def do_report_utilization(self, *args):
        self.report(*args, flags=("-hierarchical",), values=("-hierarchical_depth",))

    def do_report_drc(self, *args):
        self.report(*args)

    def do_get_timing_paths(self, *args):
        named, _ = self.options(args, flags=("-setup", "-hold"), values=("-max_paths",))
        need(self.stage == "routed", "timing of a routed design")
        return next(f"path{k}" for k in ("-setup", "-hold") if k in named)

    def do_get_property(self, name, thing):
        if name == "SLACK":
            return self.slack[thing.removeprefix("path")]
        need(name in ("PROGRESS", "STATUS") and thing in ("synth_1", "impl_1"), f"get_property {name} {thing}")
        return self.progress if name == "PROGRESS" else "place_design ERROR"

    def do_write_bitstream(self, *args):
        named, (path,) = self.options(args, flags=("-force",))
        need(self.stage == "routed" and named, "write_bitstream of a routed design")
        checked = [c[0] for c in self.done]
        need("get_timing_paths" in checked, "timing was not checked")
        self.wrote.append(path)

    # -- a project with a block design

    def do_create_project(self, *args):
        named, (_, folder) = self.options(args, flags=("-force",), values=("-part",))
        need(Path(folder).parent.is_dir() and named["-part"].startswith("xc"), "create_project")
        self.part, self.project = named["-part"], True

    def do_add_files(self, *args):
        named, (path,) = self.options(args, flags=("-norecurse",), values=("-fileset",))
        need(self.project, "no project")
        if path == "shell_wrapper.v":
            return
        if "-fileset" in named:
            need(named["-fileset"] == "constrs_1", "fileset")
            self.check_xdc(Path(path).read_text())
        else:
            self.sources.append(Path(path).read_text())

    def do_update_compile_order(self, *args):
        need(args == ("-fileset", "sources_1"), "update_compile_order")

    def do_create_bd_design(self, name):
        need(self.project and name == "shell", "create_bd_design")

    def do_get_ipdefs(self, *args):
        named, _ = self.options(args, values=("-filter",))
        found = re.match(r"VLNV =~ (xilinx.com:ip:(zynq_ultra_ps_e|proc_sys_reset)):\* && UPGRADE_VERSIONS == \{\}$",
                         named["-filter"])
        need(found, f"filter {named['-filter']}")
        return f"{found[1]}:3.5"

    def do_create_bd_cell(self, *args):
        named, (name,) = self.options(args, values=("-type", "-vlnv", "-reference"))
        if named["-type"] == "module":
            text = self.module(named["-reference"])
            ports = re.findall(r"^\s*(?:input|output) (?:\[(\d+):0\] )?(\w+)\s*;", text, re.M)
            buses = {}
            for high, port in ports:
                if m := re.fullmatch(r"(.+)_(awaddr|wdata)", port):
                    buses.setdefault(m[1], {})[m[2]] = int(high) + 1
            self.cells[name] = {"pins": {p for _, p in ports}, "buses": {b: w["wdata"] for b, w in buses.items()}}
        else:
            kind = named["-vlnv"].split(":")[2]
            pins = {"slowest_sync_clk", "ext_reset_in", "peripheral_reset"} if kind == "proc_sys_reset" else {"pl_resetn0"}
            self.cells[name] = {"pins": pins, "buses": {}}
        return name

    def do_set_property(self, *args):
        if args[0] == "top":
            need(args[1:] == ("shell_wrapper", "sources_1"), "top")
            self.top = args[1]
            return
        need(args[0] == "-dict" and args[2] == "ps", "set_property -dict of ps")
        pairs = self.split(args[1])
        values = {k.removeprefix("CONFIG."): v for k, v in zip(pairs[::2], pairs[1::2], strict=True)}
        for k, v in values.items():
            need(k in PS8 or k in PS8_OTHERS, f"the processing system has no parameter {k}")
            if k in PS8 and v == "1":
                pin, bus = PS8[k]
                self.cells["ps"]["pins"].add(pin)
                if bus:
                    self.cells["ps"]["buses"][bus] = int(values[PS8_WIDTHS[bus]])
        self.properties = values

    def do_current_fileset(self):
        return "sources_1"

    def do_get_bd_pins(self, path):
        cell, pin = path.split("/")
        need(pin in self.cells[cell]["pins"], f"no pin {path}")
        return path

    def do_get_bd_intf_pins(self, path):
        cell, bus = path.split("/")
        need(bus in self.cells[cell]["buses"], f"no interface {path}")
        return path

    def do_connect_bd_net(self, a, b):
        self.nets.append((a, b))

    def do_connect_bd_intf_net(self, a, b):
        widths = [self.cells[c]["buses"][p] for c, p in (x.split("/") for x in (a, b))]
        need(widths[0] == widths[1], f"{a} has {widths[0]} bits, {b} {widths[1]}")
        self.intf_nets.append((a, b))

    def do_get_bd_addr_spaces(self, path):
        need(path == "ps/Data", "address space")
        return path

    def do_get_bd_addr_segs(self, path):
        need(path == "nearflash_shell_0/s_axi/reg0", f"segment {path}")
        return path

    def do_assign_bd_address(self, *args):
        named, rest = self.options(args, values=("-offset", "-range", "-target_address_space"))
        if rest:
            offset, size = int(named["-offset"], 16), int(named["-range"], 16)
            need(size & size - 1 == 0 and offset % size == 0, "a segment is a power of two, aligned to it")
            self.segments[rest[0]] = (offset, size)

    def do_validate_bd_design(self):
        driven = {b for _, b in self.nets} | {a for a, _ in self.nets}
        open_ = [f"{c}/{p}" for c, cell in self.cells.items() for p in cell["pins"] if p in (
            "clk", "rst", "irq", "slowest_sync_clk", "ext_reset_in", "pl_clk0") or p.endswith("_aclk")]
        need(not (left := [p for p in open_ if p not in driven]), f"not connected: {left}")
        buses = {x for pair in self.intf_nets for x in pair}
        for name, cell in self.cells.items():
            for bus in cell["buses"]:
                need(f"{name}/{bus}" in buses, f"not connected: {name}/{bus}")
        self.validated = True

    def do_save_bd_design(self):
        need(self.validated, "validate_bd_design first")

    def do_get_files(self, name):
        need(name == "shell.bd", "get_files")
        return name

    def do_generate_target(self, what, design):
        need((what, design) == ("all", "shell.bd") and self.validated, "generate_target")

    def do_make_wrapper(self, *args):
        need(args == ("-files", "shell.bd", "-top"), "make_wrapper")
        return "shell_wrapper.v"

    def do_get_runs(self, name):
        need(name in ("synth_1", "impl_1"), f"run {name}")
        return name

    def do_launch_runs(self, name, *args):
        need(args == ("-jobs", "2") and self.top and (name == "synth_1" or "synth_1" in self.ran), f"launch_runs {name}")
        self.ran.append(name)

    def do_wait_on_run(self, name):
        need(name in self.ran, f"{name} was not launched")

    def do_open_run(self, name):
        need(name == "impl_1" and name in self.ran, "open_run")
        self.stage = "routed"
