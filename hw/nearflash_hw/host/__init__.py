"""The host's side of a device, whatever the device does: registers, queue pairs, PRP lists and reads of host memory."""
