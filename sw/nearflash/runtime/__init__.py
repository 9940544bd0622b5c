"""The host library: open a device, store tables, load a model, ask it. NumPy only, Python 3.10."""

from .backend import Backend, HostAllocator, open_backend
from .device import Device, Ticket, open
from .nvme import NvmeDriver

__all__ = ["Backend", "Device", "HostAllocator", "NvmeDriver", "Ticket", "open", "open_backend"]
