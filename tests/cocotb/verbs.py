"""What the benches share: sources, sinks and memories of a top by port name, reset, and the checks at the end."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from amaranth.hdl import Value
from amaranth.lib.wiring import In
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam
from nearflash.contract import DeviceConfig, TableSpec
from nearflash.contract.table import magic_divide
from nearflash_hw.primitives.axi import AxiSignature
from nearflash_hw.primitives.axi_lite import AxiLiteSignature
from nearflash_hw.verilog import port_names
from nearflash_sim.bench.cocotb import StreamSink, StreamSource, pack, start, until
