"""The tensor engine: blocks of image networks in int8, from DRAM to DRAM (docs/offload.md)."""
