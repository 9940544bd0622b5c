"""Bit-exact integer reference models, one module per room of the device; the gateware is tested against them."""
