"""From a model to a device configuration: the kernel planner."""

from .plan import PlanOptions, compile_device, embedding_cycles, stage_cycles, with_room

__all__ = ["PlanOptions", "compile_device", "embedding_cycles", "stage_cycles", "with_room"]
