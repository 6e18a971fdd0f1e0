"""Fitted encoders without this package: as a torch module, and as an ONNX file."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import torch
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted
from torch import nn

from . import __version__
from ._data import InputDecoder
from ._networks import fold_batch_norm as fold
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

    def to_onnx(self: Any, path: str | os.PathLike[str], *, head: Any = None) -> None:
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

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ImportError
            If onnx and onnxscript, or skl2onnx for a head, are not installed:
            ``pip install 'skfp[onnx]'``.
        ValueError
            If skl2onnx cannot convert the head.

        See Also
        --------
        OnnxEncoder : Embeds with the file, without torch.
        """
        check_is_fitted(self)
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
        program: Any = torch.onnx.export(
            module,
            (example,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(dynamic,),
            dynamo=True,
            verbose=False,
        )
        names = self._state.feature_names
        notes = Notes(
            version=__version__,
            estimator=type(self).__name__,
            format=self._state.format,
            feature_names_in=None if names is None else names.tolist(),
            feature_names_out=self.get_feature_names_out().tolist(),
        )
        model = _with_notes(program.model_proto, notes)
        onnx.save(model if head is None else _with_head(model, head, self._n_features_out), path)


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
