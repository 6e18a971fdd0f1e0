"""Fitted encoders without this package: as a torch module, and as an ONNX file."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
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

    def to_onnx(self: Any, path: str | os.PathLike[str]) -> None:
        """Write an ONNX file that embeds images as `transform` does.

        Its input "images" takes any number of images in the layout, type and range of those in fit,
        and of any size if `resize` names one; its output "embedding" is float32 (n, z). The file
        notes what :class:`OnnxEncoder` needs to take all that `transform` takes.

        Parameters
        ----------
        path : str or path-like
            The file to write.

        Raises
        ------
        NotFittedError
            If fit was not called before.
        ImportError
            If onnx and onnxscript are not installed: ``pip install 'skfp[onnx]'``.

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
        onnx.save(_with_notes(program.model_proto, notes), path)


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
