"""Timelines of a device in Perfetto's native format (TrackEvent): written, read back, compared."""

from .slices import Slice, check_slices
from .tracefile import read_timeline, write_timeline

__all__ = ["Slice", "check_slices", "read_timeline", "write_timeline"]
