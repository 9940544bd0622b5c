"""What stands at the other side of the gateware's ports in a test bench of the Amaranth simulator, each next to the name
of the signature that it speaks. Every model checks the rules of its port, and stalls at random if asked."""

from .axi_lite_slave import AxiLiteSlave
from .axi_master import AxiMaster, Burst
from .axi_slave import AxiSlave
from .flash import FlashModel
from .ftl import FtlModel
from .host_reader import HostReaderModel
from .memory import MemoryModel

__all__ = ["AxiLiteSlave", "AxiMaster", "AxiSlave", "Burst", "FlashModel", "FtlModel", "HostReaderModel", "MemoryModel"]
