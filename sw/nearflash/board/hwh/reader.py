"""Reads a hand-off file of any design with a Zynq's processing system, as the vendor's tool or :mod:`.writer` wrote it.

It agrees with PYNQ's own parser (pynqmetadata) on what the processors reach, clocks, interrupts, registers and fields, and
takes a hundredth of its time. Where they could differ it follows the hardware: an interrupt's number is its bit of the
concatenation, also behind inputs that nothing drives.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from ...contract.errors import DataError
from ...contract.reading import read_text, reading
from .design import LINES, PS_PORTS, Hwh, HwhClock, HwhField, HwhInterrupt, HwhIp, HwhRegister

__all__ = ["parse_hwh", "read_hwh"]

LARGEST = 1 << 26  # bytes: ten times the largest that the vendor's tools wrote for a base overlay
DIGITS = 24  # of a number: 80 bits in hexadecimal, with 0x
CLOCKS = 4
OUTSIDE = "External_Ports"
#: Names of each processing system's parameters of clock {i}: enable, divisors, frequency that the tool computed. The last
#: of a Zynq-7000 has two: pynq 4.0.0 looks for an UltraScale+'s in every file.
CLOCK_PARAMETERS = {
    "processing_system7": ("PCW_FPGA_FCLK{i}_ENABLE", ("PCW_FCLK{i}_PERIPHERAL_DIVISOR0", "PCW_FCLK{i}_PERIPHERAL_DIVISOR1"),
                           ("PCW_ACT_FPGA{i}_PERIPHERAL_FREQMHZ", "PSU__CRL_APB__PL{i}_REF_CTRL__ACT_FREQMHZ")),
    "zynq_ultra_ps_e": ("PSU__FPGA_PL{i}_ENABLE", ("PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR0",
                                                   "PSU__CRL_APB__PL{i}_REF_CTRL__DIVISOR1"),
                        ("PSU__CRL_APB__PL{i}_REF_CTRL__ACT_FREQMHZ",)),
}


def read_hwh(path: str | Path) -> Hwh:
    """The design of file ``path``. Raises :class:`~nearflash.contract.errors.DataError`, naming file and place, for a file
    that can't be read, is too large, or is none."""
    with reading(path):
        size = Path(path).stat().st_size
        if size > LARGEST:
            raise DataError("size", size, f"must be at most {LARGEST} bytes")
        return parse_hwh(read_text(path))


def parse_hwh(text: str) -> Hwh:
    """The design that ``text`` describes. Raises :class:`~nearflash.contract.errors.DataError`, naming the place."""
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # no tool writes one; entities may expand to anything
        raise DataError("document type", "<!DOCTYPE", "a hand-off file declares none, and no entities")
    try:
        root = ET.fromstring(text.lstrip("\ufeff"))
    except (ET.ParseError, ValueError) as e:
        raise DataError("XML", str(e), "the file is damaged or incomplete") from None
    return _Reader(root).hwh()


class _Reader:
    def __init__(self, root: ET.Element):
        self.root = root
        self.modules: dict[str, ET.Element] = {}
        for module in root.iterfind("MODULES/MODULE"):
            name = _attribute(module, "INSTANCE", "MODULE")
            if name in self.modules:
                raise DataError("MODULE INSTANCE", name, "must name each module once")
            self.modules[name] = module
        found = [n for n, m in self.modules.items() if m.get("MODTYPE") in PS_PORTS]
        if len(found) != 1:
            raise DataError("processing systems", ", ".join(found), f"must be one module of MODTYPE {', '.join(PS_PORTS)}")
        self.ps = self.modules[found[0]]
        self.kind = _attribute(self.ps, "MODTYPE", found[0])

    def hwh(self) -> Hwh:
        info = self.root.find("SYSTEMINFO")
        parameters = _parameters(self.ps)
        controllers = self._controllers()
        return Hwh("" if info is None else info.get("NAME", ""), _path(self.ps), self.kind, parameters, self._ips(),
                   self._clocks(parameters), {_path(self.modules[c]): irq for c, irq in controllers.items()},
                   self._interrupts(controllers))

    # -- what the processors reach ------------------------------------------------------------------------------------
    def _ips(self) -> dict[str, HwhIp]:
        out: dict[str, HwhIp] = {}
        masters = {b.get("NAME") for b in self.ps.iterfind("BUSINTERFACES/BUSINTERFACE") if b.get("TYPE") in
                   ("MASTER", "INITIATOR")}
        for r in self.ps.iterfind("MEMORYMAP/MEMRANGE"):
            if r.get("MASTERBUSINTERFACE") not in masters:
                continue
            instance = _attribute(r, "INSTANCE", "MEMRANGE")
            module = self._module(instance, "MEMRANGE INSTANCE")
            base, high = (_number(r, name, f"MEMRANGE of {instance}", 16) for name in ("BASEVALUE", "HIGHVALUE"))
            if high < base:
                raise DataError(f"MEMRANGE of {instance}: HIGHVALUE", hex(high), f"must not lie below BASEVALUE, {base:#x}")
            path, port = _path(module), r.get("SLAVEBUSINTERFACE", "")
            memory = r.get("MEMTYPE") == "MEMORY" or (path in out and out[path].memory)
            out[path] = HwhIp(path, _attribute(module, "VLNV", instance), port, base, high - base + 1, memory,
                              _parameters(module), tuple(_registers(module, port)))
        return out

    def _module(self, instance: str, what: str) -> ET.Element:
        if instance not in self.modules:
            raise DataError(what, instance, "must name a module of the file")
        return self.modules[instance]

    def _clocks(self, parameters: dict[str, str]) -> tuple[HwhClock, ...]:
        enable, divisors, achieved = CLOCK_PARAMETERS[self.kind]
        out = []
        for i in range(CLOCKS):
            a, b = (_integer(_parameter(parameters, d.format(i=i)), d.format(i=i)) for d in divisors)
            mhz = next((parameters[n.format(i=i)] for n in achieved if n.format(i=i) in parameters), None)
            name = enable.format(i=i)
            out.append(HwhClock(_integer(_parameter(parameters, name), name) == 1, (a, b),
                                None if mhz is None else _real(mhz, achieved[0].format(i=i))))
        return tuple(out)

    # -- interrupts -----------------------------------------------------------------------------------------------------
    def _controllers(self) -> dict[str, int]:
        """Instances of interrupt controllers behind the processing system's inputs, with the GIC's number."""
        out: dict[str, int] = {}
        for port, runs in PS_PORTS[self.kind]:
            numbers = [first + k for first in runs for k in range(LINES)]
            for bit, instance, _ in self._drivers(self.ps, port, 0, frozenset()):
                if self.modules[instance].get("MODTYPE") == "axi_intc" and instance not in out and bit < len(numbers):
                    out[instance] = numbers[bit]
        return out

    def _interrupts(self, controllers: dict[str, int]) -> dict[str, HwhInterrupt]:
        out: dict[str, HwhInterrupt] = {}
        for instance in controllers:
            controller = self.modules[instance]
            for bit, source, pin in self._drivers(controller, "intr", 0, frozenset()):
                out[f"{_path(self.modules[source])}/{pin}"] = HwhInterrupt(_path(controller), bit)
        return out

    def _drivers(self, module: ET.Element, port: str, bit: int, through: frozenset[str]) -> Iterator[tuple[int, str, str]]:
        """(bit, instance, port) of what drives input ``port``, whose first bit is ``bit``: through concatenations, each of
        which may be passed once on one way."""
        found = _port(module, port)
        for c in () if found is None else found.iterfind("CONNECTIONS/CONNECTION"):
            instance, pin = (_attribute(c, name, f"CONNECTION of {port}") for name in ("INSTANCE", "PORT"))
            if instance == OUTSIDE or instance.endswith("_imp"):
                continue
            source = self._module(instance, f"CONNECTION of {port}: INSTANCE")
            if source.get("MODTYPE") != "xlconcat":
                yield bit, instance, pin
                continue
            if instance in through:
                raise DataError(f"CONNECTION of {port}", instance, "a concatenation must not feed itself")
            at = bit
            for p in source.iterfind("PORTS/PORT"):
                if p.get("DIR") == "I":
                    yield from self._drivers(source, _attribute(p, "NAME", instance), at, through | {instance})
                    at += _width(p)


def _registers(module: ET.Element, port: str) -> Iterator[HwhRegister]:
    """Of the address blocks that lead to ``port``; of two registers of one name the first, as PYNQ takes it."""
    seen: set[str] = set()
    for block in module.iterfind("ADDRESSBLOCKS/ADDRESSBLOCK"):
        if block.get("USAGE") not in ("register", "memory") or block.get("INTERFACE", "").lower() != port.lower():
            continue
        for register in block.iterfind("REGISTERS/REGISTER"):
            name = _attribute(register, "NAME", "REGISTER")
            if name in seen:
                continue
            seen.add(name)
            p = _properties(register)
            fields = tuple(_field(f, name) for f in register.iterfind("FIELDS/FIELD"))
            yield HwhRegister(name, _integer(p.get("ADDRESS_OFFSET", "0"), f"{name}: ADDRESS_OFFSET"),
                              _integer(p.get("SIZE", "32"), f"{name}: SIZE"), p.get("ACCESS", "read-write"),
                              p.get("DESCRIPTION", ""), fields)


def _field(element: ET.Element, register: str) -> HwhField:
    name, p = _attribute(element, "NAME", f"FIELD of {register}"), _properties(element)
    where = f"{register}.{name}"
    return HwhField(name, _integer(p.get("BIT_OFFSET", "0"), f"{where}: BIT_OFFSET"),
                    _integer(p.get("BIT_WIDTH", "1"), f"{where}: BIT_WIDTH"), p.get("ACCESS", "read-write"),
                    p.get("DESCRIPTION", ""))


def _path(module: ET.Element) -> str:
    return module.get("FULLNAME", "").lstrip("/") or module.get("INSTANCE", "")


def _port(module: ET.Element, name: str) -> ET.Element | None:
    return next((p for p in module.iterfind("PORTS/PORT") if p.get("NAME") == name), None)


def _width(port: ET.Element) -> int:
    if port.get("LEFT") is None:
        return 1
    left, right = (_number(port, end, f"PORT {port.get('NAME')}", 10) for end in ("LEFT", "RIGHT"))
    return abs(left - right) + 1


def _properties(element: ET.Element) -> dict[str, str]:
    return {p.get("NAME", ""): p.get("VALUE", "") for p in element.iterfind("PROPERTY")}


def _parameters(module: ET.Element) -> dict[str, str]:
    return {p.get("NAME", ""): p.get("VALUE", "") for p in module.iterfind("PARAMETERS/PARAMETER")}


def _parameter(parameters: dict[str, str], name: str) -> str:
    if name not in parameters:
        raise DataError("PARAMETER", name, "is missing from the processing system")
    return parameters[name]


def _attribute(element: ET.Element, name: str, where: str) -> str:
    value = element.get(name)
    if not value:
        raise DataError(f"{where}: {name}", value, "is missing")
    return value


def _number(element: ET.Element, name: str, where: str, base: int) -> int:
    return _integer(_attribute(element, name, where), f"{where}: {name}", base)


def _integer(text: str, field: str, base: int = 10) -> int:
    """Decimal, or hexadecimal after 0x; ``base`` 16: hexadecimal either way."""
    try:
        if len(text) > DIGITS:
            raise ValueError
        value = int(text, 16 if text.lower().startswith("0x") else base)
    except ValueError:
        raise DataError(field, text, f"must be a number of at most {DIGITS} characters") from None
    if value < 0:
        raise DataError(field, text, "must not be negative")
    return value


def _real(text: str, field: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DataError(field, text, "must be a number") from None
    if not 0 <= value < 1e6:
        raise DataError(field, text, "must be a frequency in MHz")
    return value
