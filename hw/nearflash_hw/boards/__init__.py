"""Board shells: what lies between a device and a processing system, from :mod:`nearflash.contract.shell`."""
