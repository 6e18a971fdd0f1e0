"""ONNX graphs of fewer bits: weights stored in float16, or arithmetic in int8."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from ._onnx_file import INPUT

# Layers with weights, and what may stand between them in 8 bits.
_LAYERS = {"Conv", "Gemm", "MatMul"}
_BETWEEN = {"Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool"}
_BETWEEN |= {"Relu", "Reshape"}


def store_in_float16(model: Any) -> None:
    """Store the weights of a graph in float16, and convert them to float32 before they are used.

    ONNX Runtime converts them once, when it reads the file: arithmetic in float16 is slow on most
    processors.
    """
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weights in model.graph.initializer:
        if weights.data_type != TensorProto.FLOAT or len(weights.dims) < 2:
            continue  # small
        name, values = weights.name, numpy_helper.to_array(weights)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue  # would become infinite
        half = numpy_helper.from_array(values.astype(np.float16), f"{name}_float16")
        weights.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    model.graph.ClearField("node")
    model.graph.node.extend(nodes)


def quantise(model: Any, images: Iterable[np.ndarray]) -> Any:
    """Let a graph compute in int8, from its first layer on: what is before it prepares images.

    Parameters
    ----------
    model : onnx.ModelProto
        A graph in float32.
    images : iterable of ndarray
        Batches for its input, from which the ranges of all activations are found.

    Returns
    -------
    model : onnx.ModelProto
        Its input and output are of the same types.
    """
    import onnx

    try:
        from onnxruntime.quantization import QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ImportError(
            "dtype='int8' needs onnxruntime: pip install 'skfp[onnx,serve]'."
        ) from error
    weights = {one.name for one in model.graph.initializer}
    nodes = list(model.graph.node)
    first = next(
        number
        for number, node in enumerate(nodes)
        if node.op_type in _LAYERS and weights.intersection(node.input)
    )
    feeds = ({INPUT: batch} for batch in images)
    with TemporaryDirectory() as folder:
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "quantised.onnx")
        # Finds the shapes of all tensors.
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            SimpleNamespace(get_next=lambda: next(feeds, None)),
            op_types_to_quantize=sorted(_LAYERS | _BETWEEN),
            nodes_to_quantize=[node.name for node in nodes[first:]],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Of the embedding too, which 256 values for all its numbers would blur.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
        )
        return onnx.load(quantised)
