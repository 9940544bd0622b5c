"""The compiled loops of the simulator, and what they keep."""
