"""Simulators of the nearflash device: Verilated whole-device harness, the "sim" back end, test bench verbs."""
