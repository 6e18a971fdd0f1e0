"""Fitted encoders without this package: as a torch module, and as an ONNX file."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import nn

from . import __version__
from ._data import InputDecoder
from ._images.matching import read_like
from ._networks import fold_batch_norm as fold
from ._onnx_dtypes import quantise, store_in_float16
from ._onnx_encoder import read_batches
from ._onnx_file import INPUT, OUTPUT, Notes


class ExportMixin:
    """The encoder with its preprocessing, in other forms."""

    def to_torch(self: Any, *, fold_batch_norm: bool = False) -> nn.Sequential:
        """Make a torch module that embeds images as `transform` does.

        Parameters
        ----------
        fold_batch_norm : bool, default=False
            Whether to make each BatchNorm part of the convolution before it: faster, but no
            longer to be trained. Changes the embedding by rounding only.

        Returns
        -------
        module : torch.nn.Sequential
            Maps a batch of images in the layout, type and range of those in fit, of any size if
            `resize` names one, to a float32 tensor (n, z). A copy, on the CPU, in evaluation mode,
            with parameters that can be trained.

        Raises
        ------
        NotFittedError
            If fit was not called before.

        Examples
        --------
        >>> import numpy as np
        >>> import torch
        >>> from skfp import PixelAutoencoder
        >>> images = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)
        >>> module = PixelAutoencoder(z=2, max_epochs=1).fit(images).to_torch()
        >>> module(torch.from_numpy(images)).shape
        torch.Size([20, 2])
        """
        check_is_fitted(self)
        state = self._state
        encoder = fold(state.networks.encoder) if fold_batch_norm else state.networks.encoder
        layers = copy.deepcopy(state.embedder(encoder))
        return nn.Sequential(InputDecoder(state.format), *layers).eval()

    def to_onnx(
        self: Any,
        path: str | os.PathLike[str],
        *,
        head: Any = None,
        dtype: str = "float32",
        X: Any = None,
    ) -> None:
        """Write an ONNX file that embeds images as `transform` does.

        Its input "images" takes any number of images in the layout, type and range of those in fit,
        and of any size if `resize` names one; its output "embedding" is float32 (n, z). The file
        notes what :class:`OnnxEncoder` needs to take all that `transform` takes.

        Parameters
        ----------
        path : str or path-like
            The file to write.
        head : estimator, default=None
            A scikit-learn model or pipeline, fitted on embeddings, to put behind the encoder. The
            file then predicts: its outputs are "label" and "probabilities" of a classifier, and
            "prediction" of a regressor. :class:`OnnxEncoder` does not read such files.
        dtype : {"float32", "float16", "int8"}, default="float32"
            "float16" stores weights in half the size, and computes in float32. "int8" stores them
            in a quarter of the size and computes in 8 bits from the first layer to the last, which
            is faster on most processors and keeps less of the embedding: compare it with that of
            `transform` on images of yours.
        X : array-like, default=None
            Images, as `transform` takes them, from which "int8" finds the ranges of what it
            computes: some hundred of those in fit will do. Other types do not use them.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ImportError
            If onnx and onnxscript, or skl2onnx for a head, are not installed:
            ``pip install 'skfp[onnx]'``. If onnxruntime is not, for "int8":
            ``pip install 'skfp[onnx,serve]'``.
        ValueError
            If skl2onnx cannot convert the head, `dtype` is unknown, or X is missing or not like
            the images in fit.

        See Also
        --------
        OnnxEncoder : Embeds with the file, without torch.
        """
        check_is_fitted(self)
        if dtype not in ("float32", "float16", "int8"):
            raise ValueError(f"dtype is {dtype!r}; expected 'float32', 'float16' or 'int8'.")
        if dtype == "int8" and X is None:
            raise ValueError(
                "dtype='int8' needs images X, to find the ranges of what it computes: pass some "
                "hundred of those in fit."
            )
        try:
            import onnx
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "to_onnx needs onnx and onnxscript: pip install 'skfp[onnx]'."
            ) from error
        module = self.to_torch(fold_batch_norm=True)
        decoder: Any = module[0]
        shape, dynamic = [*decoder.format.shape], {0: torch.export.Dim("batch")}
        if decoder.format.takes_any_size:
            for axis, name in zip(decoder.format.size_axes, ("height", "width"), strict=True):
                # Of a size of its own, which the exporter would otherwise take for a constant.
                shape[axis], dynamic[axis + 1] = 80 + 16 * axis, torch.export.Dim(name)
        # Two images: a batch of one would be taken for a constant.
        example = torch.zeros(2, *shape, dtype=decoder.dtype)
        batches = self._read_for_graph(X, example.numpy().dtype) if dtype == "int8" else ()
        program: Any = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic,),
            dynamo=True,
            verbose=False,
        )
        model = program.model_proto
        if dtype == "float16":
            store_in_float16(model)
        elif dtype == "int8":
            model = quantise(model, batches)
        names = self._state.feature_names
        notes = Notes(
            version=__version__,
            estimator=type(self).__name__,
            format=self._state.format,
            feature_names_in=None if names is None else names.tolist(),
            feature_names_out=self.get_feature_names_out().tolist(),
            dtype=dtype,
        )
        model = _with_notes(model, notes)
        onnx.save(model if head is None else _with_head(model, head, self._n_features_out), path)

    def _read_for_graph(self: Any, X: Any, dtype: np.dtype) -> Iterator[np.ndarray]:
        """Read images in the type that the graph declares for its input, batch by batch."""
        fitted = self._state.format
        array, found = read_like(X, fitted, self)
        return (
            (images if dtype.kind == "f" else np.rint(images)).astype(dtype)
            for _, parts in read_batches(array, found, fitted, dtype == np.uint8)
            for images in parts
        )


def _with_notes(model: Any, notes: Notes) -> Any:
    """Put our notes in place of the exporter's, which name folders of this machine."""
    import onnx

    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for noted in (*nodes, *model.graph.initializer, model.graph):
        noted.ClearField("metadata_props")
    # Types of what is computed on the way: they follow from that of the input.
    model.graph.ClearField("value_info")
    onnx.helper.set_model_props(model, notes.to_metadata())
    return model


def _with_head(model: Any, head: Any, z: int) -> Any:
    """Join a model of scikit-learn to the output of an encoder."""
    import onnx

    try:
        import skl2onnx
    except ImportError as error:
        raise ImportError("A head needs skl2onnx: pip install 'skfp[onnx]'.") from error
    (opset,) = (one.version for one in model.opset_import if one.domain == "")
    classifies = is_classifier(head)
    try:
        converted = skl2onnx.to_onnx(
            head,
            np.zeros((1, z), np.float32),
            target_opset=opset,
            # Else probabilities would be a list of dicts.
            options={"zipmap": False} if classifies else None,
        )
    except Exception as error:  # one class for each way to fail
        raise ValueError(f"skl2onnx cannot convert the head {head!r}: {error}") from error
    if not classifies:
        _reshape_prediction(converted.graph, head.predict(np.zeros((2, z), np.float32)).shape)
    keep = {"rename_inputs": False, "rename_outputs": False}
    converted = onnx.compose.add_prefix(converted, "head_", **keep)
    converted.ir_version = model.ir_version
    links = [(OUTPUT, converted.graph.input[0].name)]
    joined = onnx.compose.merge_models(model, converted, io_map=links)
    joined.ClearField("metadata_props")  # which are for the encoder alone
    return joined


def _reshape_prediction(graph: Any, shape: tuple[int, ...]) -> None:
    """Let a regressor predict rows as `predict` does: skl2onnx makes a column of some."""
    from onnx import TensorProto, helper

    (output,) = graph.output
    rows = helper.make_tensor("rows", TensorProto.INT64, [len(shape)], [-1, *shape[1:]])
    graph.initializer.append(rows)
    graph.node.append(helper.make_node("Reshape", [output.name, "rows"], ["prediction"]))
    kind = output.type.tensor_type.elem_type
    graph.ClearField("output")
    graph.output.append(helper.make_tensor_value_info("prediction", kind, ["batch", *shape[1:]]))
