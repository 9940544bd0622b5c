"""What the units of a convolution know of their descriptor, and the tiles that pass between them."""

from __future__ import annotations

from amaranth.hdl import Cat, signed
from amaranth.lib import data, stream
from nearflash.contract.tensor import TensorConfig

from ..interfaces import bits_for, index_bits
from ..primitives.fifo import StreamFifo
from .epilogue import epilogue_layout

__all__ = ["ADDRESS_BITS", "conv_layout", "every_ready", "half_words", "surface_layout", "tile_layout", "unit_queue"]

ADDRESS_BITS = 32  # of an offset in the tensor region
SIZE_BITS = 16  # of a descriptor's sizes
SMALL_BITS = 4  # kernel, stride, padding, shuffle
TILES = 4  # that units may be apart
BLOCK_BITS = 21  # of an output block's beats: 64 taps of 1024 channels for 64 rows, in beats of 8 bytes, are 2**19


def surface_layout() -> data.StructLayout:
    """Steps in bytes through a tensor in DRAM, of which a tile is worked on at a time.

    ``at``: where the first tile's first pixel lies (for an input with padding: would lie). ``pixel``, ``row``: to the next
    one. ``right``, ``down``: to what belongs to the next output pixel or row (stride or shuffle times as far).
    ``tile_right``, ``tile_down``: to the next tile. ``wide``: elements of 16 bits.
    """
    return data.StructLayout({"at": ADDRESS_BITS, "pixel": SIZE_BITS, "row": ADDRESS_BITS, "right": SIZE_BITS,
                              "down": ADDRESS_BITS, "tile_right": ADDRESS_BITS, "tile_down": ADDRESS_BITS, "wide": 1})


def conv_layout() -> data.StructLayout:
    """A CONV descriptor and what follows from it. Fields as in contract.tensor, and:

    ``channels``: of an output pixel after the shuffle. ``blocks``: of outputs, in all, each shuffle group's channels in
    whole blocks; ``group``: whose weights are held at once, all if ``streamed``. ``words``: X buffer words of a pixel;
    ``kernel_words`` and ``stride_words``: of a kernel row and from an output pixel to the next. ``tile_ix``, ``tile_iy``:
    input pixels from a tile to the next. ``block_beats``: beats of an output block's weights.
    ``entry_beats``: of all entries.
    """
    surface = surface_layout()
    return data.StructLayout({
        "x": surface, "y": surface, "r": surface, "weights": ADDRESS_BITS, "entries": ADDRESS_BITS,
        "in_height": SIZE_BITS, "in_width": SIZE_BITS, "out_height": SIZE_BITS, "out_width": SIZE_BITS,
        "channels": SIZE_BITS, "tile_rows": SIZE_BITS, "tile_columns": SIZE_BITS, "tile_iy": SIZE_BITS, "tile_ix": SIZE_BITS,
        "kernel_h": SMALL_BITS, "kernel_w": SMALL_BITS, "stride": SMALL_BITS, "pad_top": SMALL_BITS, "pad_left": SMALL_BITS,
        "shuffle": SMALL_BITS, "pad_value": signed(8), "words": 8, "kernel_words": SIZE_BITS, "stride_words": SIZE_BITS,
        "blocks": SIZE_BITS, "group": SIZE_BITS, "streamed": 1, "block_beats": BLOCK_BITS, "entry_beats": SIZE_BITS,
        "epilogue": epilogue_layout()})


def half_words(config: TensorConfig) -> int:
    """Words of ``columns`` bytes in half the X buffer."""
    return config.input_bytes // 2 // config.columns


def tile_layout(config: TensorConfig) -> data.StructLayout:
    """A tile of output pixels, and what of the input it sees.

    ``x``, ``y``, ``r``: where it begins. ``iy``, ``ix``: input pixel of its first tap, which may be padding. ``in_rows``,
    ``in_columns``: what its taps reach. ``line``: X buffer words of an input row; ``down``: from an output row to the next;
    ``skip``: from a kernel row's last word to the next row's first. ``blocks``: output blocks to compute. ``first``: of the
    descriptor; ``group_begin``, ``group_end``: of a pass over the tiles with the same weights; ``end``: of the descriptor.
    """
    side, buffer = bits_for(config.pixels), index_bits(half_words(config))
    return data.StructLayout({
        "rows": side, "columns": side, "x": ADDRESS_BITS, "y": ADDRESS_BITS, "r": ADDRESS_BITS,
        "iy": signed(SIZE_BITS + 1), "ix": signed(SIZE_BITS + 1), "in_rows": SIZE_BITS, "in_columns": SIZE_BITS,
        "line": buffer, "down": buffer, "skip": buffer, "blocks": SIZE_BITS, "first": 1, "group_begin": 1, "group_end": 1,
        "end": 1})


def every_ready(m, source: stream.Interface, sinks: list) -> None:
    """Gives each transfer of ``source`` to all ``sinks`` at once."""
    ready = Cat(s.ready for s in sinks).all()
    m.d.comb += source.ready.eq(ready)
    for s in sinks:
        m.d.comb += [
            s.valid.eq(source.valid & ready),
            s.payload.eq(source.payload),
        ]


def unit_queue(shape: data.Layout) -> StreamFifo:
    """What a unit is to do next, while others are ahead of it. The next one waits in registers: a unit decides in the same
    cycle whether it was the last of it, which reading a memory first would make the longest path of an engine."""
    return StreamFifo(shape, TILES, buffered=True)
