"""Timelines of a device in Perfetto's native format (TrackEvent): written, read back, compared."""

from .slices import MOST_SLICES, Slice, check_slices, host_slices
from .tracefile import read_timeline, write_timeline

__all__ = ["MOST_SLICES", "Slice", "check_slices", "host_slices", "read_timeline", "write_timeline"]
