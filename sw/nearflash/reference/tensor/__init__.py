"""The integer semantics of the tensor engine's operators, bit for bit; docs/offload.md has them as formulas.

Arrays are ``[height, width, channels]``; codes are int8 or int16 values in any integer type, accumulators int64.
:class:`.engine.TensorModel` runs whole programs on the bytes of a tensor region.
"""

from .attention import EXP2, attention, exponentials, reciprocal
from .engine import TensorModel
from .epilogue import Scale, epilogue
from .norm import layer_norm, reciprocal_root
from .window import convolve, depthwise, pool

__all__ = ["EXP2", "Scale", "TensorModel", "attention", "convolve", "depthwise", "epilogue", "exponentials", "layer_norm",
           "pool", "reciprocal", "reciprocal_root"]
