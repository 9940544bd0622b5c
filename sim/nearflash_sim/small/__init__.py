"""Small devices that tests and benches share, so that each is Verilated once."""
