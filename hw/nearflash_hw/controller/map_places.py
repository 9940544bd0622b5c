"""Where an entry of the map lies: in its beat, its line and the on-chip cache."""

from amaranth.hdl import Value
from nearflash.contract import DeviceConfig
from nearflash.contract.config import log2

from ..interfaces import bits_for

__all__ = ["LINE_BEATS", "MapPlaces"]

LINE_BEATS = 4


class MapPlaces:
    """Parts of a logical page's number, low bits first: word of a beat, beat of a line, line of the cache, tag."""

    def __init__(self, config: DeviceConfig):
        self.words = config.beat_bytes // 4
        self.word_bits, self.line_bits = log2(self.words), log2(LINE_BEATS)
        self.index_bits = log2(config.lookup.map_cache_lines)
        self.place_bits = self.word_bits + self.line_bits + self.index_bits  #: in the cache
        self.used = max(bits_for(config.lbas - 1), self.word_bits + self.line_bits)  #: of a page that there is
        self.tag_bits = max(0, self.used - self.place_bits)

    def word(self, lpn: Value) -> Value:
        return lpn[: self.word_bits]

    def row(self, lpn: Value) -> Value:
        """{line, beat}: the address in the data memory."""
        return lpn[self.word_bits : self.place_bits]

    def index(self, lpn: Value) -> Value:
        return lpn[self.word_bits + self.line_bits : self.place_bits]

    def tag(self, lpn: Value) -> Value:
        return lpn[self.place_bits : self.place_bits + self.tag_bits]

    def line(self, lpn: Value) -> Value:
        """Of the map."""
        return lpn[self.word_bits + self.line_bits : self.used]
