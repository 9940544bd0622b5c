"""A simulator of the device's time: what each query takes, to the cycle where the gateware is simple."""
