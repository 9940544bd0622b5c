"""nearflash gateware (Amaranth): the SSD controller with its embedding lookup and MLP engines."""
