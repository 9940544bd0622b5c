"""Processing systems of boards: the Arm side of a Zynq, through whose ports a shell reaches processors and memory.

Sources: UG585 (Zynq-7000: chapters 4, 5, 25), UG1085 (Zynq UltraScale+: chapters 10, 35, 37).
"""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigError

__all__ = ["PS7", "PS8", "ProcessingSystem"]


@dataclass(frozen=True)
class ProcessingSystem:
    """What a shell is generated against.

    ``axi``: version of its AXI ports, 3 or 4. ``arch``: of its processors, as PYNQ names them. ``master``: its port towards
    registers in the fabric, of 32 bits here, whose window begins at ``window``. ``slaves``: its ports towards memory, the
    first for host memory, the second for the device's DRAM, each of one of ``slave_widths`` bits and with ``reach_bits`` of
    address. ``pll_mhz``: what the clock of the fabric is divided from, as PYNQ's images set it up. ``ddr``:
    where memory lies, (address, most bytes) of each part.
    """

    kind: str
    axi: int
    arch: str
    master: str
    master_id_bits: int
    window: int
    window_bytes: int
    slaves: tuple[str, str]
    slave_widths: tuple[int, ...]
    slave_id_bits: int
    reach_bits: int
    pll_mhz: float
    ddr: tuple[tuple[int, int], ...]

    @property
    def max_burst(self) -> int:
        """Beats of the longest burst."""
        return 16 if self.axi == 3 else 256

    def slave_bits(self, beat_bytes: int) -> int:
        """Width of the ports towards memory for a device of ``beat_bytes``: its own, or the widest there is. PYNQ sets the
        width of a PS8's ports from the ``.hwh`` and never touches a PS7's, so that of these only the widest is safe.

        Raises :class:`ConfigError` for a device that is narrower than the narrowest."""
        fitting = [w for w in self.slave_widths if w <= beat_bytes * 8]
        if not fitting:
            raise ConfigError("beat_bytes", beat_bytes, f"must be at least {min(self.slave_widths) // 8}: the {self.kind}'s "
                              f"memory ports have {self.slave_widths} bits")
        return max(fitting)

    def divisors(self, mhz: float) -> tuple[int, int]:
        """The two divisors (1 to 63 each) of :attr:`pll_mhz` that make ``mhz``, the larger first.

        Raises :class:`ConfigError`, naming the nearest clocks, where none do within 0.1 %."""
        pairs = {a * b: (a, b) for a in range(1, 64) for b in range(1, a + 1)}
        nearest = min(pairs, key=lambda d: abs(self.pll_mhz / d - mhz))
        if abs(self.pll_mhz / nearest - mhz) > mhz / 1000:
            below = min(d for d in pairs if self.pll_mhz / d < mhz) if mhz > self.pll_mhz / max(pairs) else max(pairs)
            above = max((d for d in pairs if self.pll_mhz / d > mhz), default=min(pairs))
            raise ConfigError("clock_mhz", mhz, f"can't be made from the {self.kind}'s {self.pll_mhz:g} MHz: the nearest "
                              f"are {self.pll_mhz / below:.6g} and {self.pll_mhz / above:.6g}")
        return pairs[nearest]

    def clock_below(self, mhz: float) -> float:
        """The fastest clock that can be made, at most ``mhz``, in MHz."""
        return max(self.pll_mhz / (a * b) for a in range(1, 64) for b in range(1, a + 1) if self.pll_mhz / (a * b) <= mhz)


#: Zynq-7000: AXI3. IOPLL 50 MHz x 20, as on PYNQ-Z1 and PYNQ-Z2.
PS7 = ProcessingSystem("processing_system7", 3, "armv7l", "M_AXI_GP0", 12, 0x4000_0000, 1 << 30,
                       ("S_AXI_HP0", "S_AXI_HP1"), (64,), 6, 32, 1000.0, ((0, 1 << 30),))
#: Zynq UltraScale+: AXI4. IOPLL 33.333 MHz x 90 / 2, as on ZCU104 and KV260.
PS8 = ProcessingSystem("zynq_ultra_ps_e", 4, "aarch64", "M_AXI_HPM0_FPD", 16, 0xA000_0000, 1 << 28,
                       ("S_AXI_HP0_FPD", "S_AXI_HP1_FPD"), (64, 128), 6, 40, 1500.0,
                       ((0, 2 << 30), (0x8_0000_0000, 32 << 30)))
