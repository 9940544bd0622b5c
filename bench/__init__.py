"""Performance of the generated hardware, measured in its Verilated RTL. Figures, not tests: nothing here has a limit."""
