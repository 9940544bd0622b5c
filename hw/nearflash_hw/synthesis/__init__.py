"""What the gateware costs and how fast it is: Yosys, nextpnr, and reports of other tools."""
