"""The registers of the processing system that PYNQ touches: clocks and port widths (UG585 appendix B.28; UG1087)."""

from __future__ import annotations

from nearflash.contract.processing import PS7, ProcessingSystem

__all__ = ["PsRegisters"]

#: Windows of registers by base address, bytes. Within them every word reads back what was written.
WINDOWS = {
    "processing_system7": ((0xF800_0000, 0x1000),),  # SLCR
    "zynq_ultra_ps_e": ((0xFF5E_0000, 0x1000), (0xFD1A_0000, 0x1000),  # CRL_APB, CRF_APB
                        (0xFD61_5000, 0x1000), (0xFF41_9000, 0x1000),  # FPD_SLCR, LPD_SLCR: widths of masters
                        *((0xFD36_0000 + 0x1_0000 * k, 0x1000) for k in range(6)), (0xFF9B_0000, 0x1000)),  # AFIFM0 to 6
}
SLCR, CRL_APB, CRF_APB = 0xF800_0000, 0xFF5E_0000, 0xFD1A_0000
HP0_WIDTH = 0xFD38_0000  # AFIFM2: S_AXI_HP0_FPD
WIDTHS = {0: 128, 1: 64, 2: 32}

#: As PYNQ's images leave them: PLLs, and every fabric clock at 100 MHz from the IOPLL.
RESETS = {
    "processing_system7": {
        SLCR + 0x100: 26 << 12, SLCR + 0x104: 21 << 12, SLCR + 0x108: 20 << 12,  # ARM, DDR, IO PLL: x 50 MHz
        SLCR + 0x120: 2 << 8, **{SLCR + 0x170 + 0x10 * k: 1 << 20 | 10 << 8 for k in range(4)}},
    "zynq_ultra_ps_e": {
        CRL_APB + 0x20: 1 << 16 | 90 << 8, CRL_APB + 0x30: 1 << 16 | 63 << 8,  # IOPLL, RPLL: x 33.333 MHz / 2
        CRF_APB + 0x20: 1 << 16 | 72 << 8, CRF_APB + 0x2C: 1 << 16 | 64 << 8, CRF_APB + 0x38: 1 << 16 | 90 << 8,
        CRF_APB + 0x60: 1 << 8, **{CRL_APB + 0xC0 + 4 * k: 1 << 24 | 1 << 16 | 15 << 8 for k in range(4)}},
}


class PsRegisters:
    """Words by physical address; what they say about the fabric's clock and ports."""

    def __init__(self, ps: ProcessingSystem):
        self.ps = ps
        self._words = dict(RESETS[ps.kind])

    def __contains__(self, address: int) -> bool:
        return any(base <= address < base + size for base, size in WINDOWS[self.ps.kind])

    def read(self, address: int) -> int:
        return self._words.get(address, 0)

    def write(self, address: int, value: int) -> None:
        self._words[address] = value

    @property
    def fabric_mhz(self) -> float:
        """The fabric's clock 0, MHz; 0 while it stands still."""
        if self.ps is PS7:
            word = self.read(SLCR + 0x170)
            source = {2: 0x100, 3: 0x104}.get(word >> 4 & 3, 0x108)
            pll = 50.0 * (self.read(SLCR + source) >> 12 & 0x7F)
            running = True
        else:
            word = self.read(CRL_APB + 0xC0)
            source = {2: CRL_APB + 0x30, 3: CRF_APB + 0x2C}.get(word & 7, CRL_APB + 0x20)
            setting = self.read(source)
            pll = 33.333 * (setting >> 8 & 0x7F) / (2 if setting >> 16 & 1 else 1)
            running = bool(word >> 24 & 1)
        first, second = word >> 8 & 0x3F, word >> (20 if self.ps is PS7 else 16) & 0x3F
        return pll / (first * second) if running and first and second else 0.0

    @property
    def slave_bits(self) -> int:
        """Width of the memory ports as set up; a PS7's is fixed."""
        return 64 if self.ps is PS7 else WIDTHS.get(self.read(HP0_WIDTH) & 3, 0)
