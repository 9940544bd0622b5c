"""Recommendation models: what they are (:class:`ModelSpec`, needs no torch), the PyTorch module, the zoo, and loaders
of real checkpoints. The parts that need torch are imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .spec import ModelSpec, TableShape

if TYPE_CHECKING:
    from .loaders import load_checkpoint, load_dlrm_state_dict, load_torchrec_state_dict
    from .module import RecModel
    from .zoo import ZOO, build, model_spec

__all__ = ["ZOO", "ModelSpec", "RecModel", "TableShape", "build", "load_checkpoint", "load_dlrm_state_dict",
           "load_torchrec_state_dict", "model_spec"]

_LAZY = {"ZOO": "zoo", "model_spec": "zoo", "build": "zoo", "RecModel": "module", "load_checkpoint": "loaders",
         "load_dlrm_state_dict": "loaders", "load_torchrec_state_dict": "loaders"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)
