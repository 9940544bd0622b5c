"""A network in PyTorch's own int8 on a CPU, to compare times with: torchao's PT2E quantisation, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

__all__ = ["compiled_int8"]

LAYERS = (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
#: What the compiler counts when it gives a layer to oneDNN's int8 kernels.
COUNTED = ("qconv_weight_prepack_matcher_count", "qlinear_weight_prepack_matcher_count")


def _quantizer() -> Any:
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, Quantizer
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import get_default_x86_inductor_quantization_config

    config = get_default_x86_inductor_quantization_config()  # uint8 activations, int8 weights per channel

    class LayersQuantizer(Quantizer):
        """torchao's own for x86 stops at modules that hold more than a layer; this one looks at operators."""

        def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
            for node in model.graph.nodes:
                if node.target in LAYERS:
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        {node.args[0]: config.input_activation, node.args[1]: config.weight}, _annotated=True)
            return model

        def validate(self, model: fx.GraphModule) -> None:
            pass

    return LayersQuantizer()


def compiled_int8(net: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Callable[..., torch.Tensor], int, int]:
    """``net`` with its convolutions and linear layers in int8, calibrated on ``inputs`` and compiled for them; how many of
    these layers run on int8 kernels, and how many there are. What lies between them stays in fp32."""
    from torch._dynamo.utils import counters
    from torch._inductor import config
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with torch.no_grad(), config.patch(freezing=True):
        prepared = prepare_pt2e(torch.export.export(net, inputs).module(), _quantizer())
        prepared(*inputs)
        quantised = convert_pt2e(prepared)
        layers = sum(node.target in LAYERS for node in quantised.graph.nodes)
        counters.clear()
        run = torch.compile(quantised)
        run(*inputs)
        return run, sum(counters["inductor"][name] for name in COUNTED), layers
