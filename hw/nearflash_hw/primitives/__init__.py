"""Blocks that know neither flash, recommendation nor SAR: streams, arbiters, memory ports, AXI."""
