"""Fitted encoders without this package: as a torch module, and as an ONNX file."""

from __future__ import annotations

import copy
import os
from typing import Any

import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ._data import InputDecoder
from ._networks import fold_batch_norm as fold


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
            Maps a batch of images in the layout, type and range of those in fit, and of the size
            that `resize` names if theirs were mixed, to a float32 tensor (n, z). A copy, on the
            CPU, in evaluation mode, with parameters that can be trained.

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

    def to_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write an ONNX file that embeds images as `transform` does.

        Its input "images" takes a batch of any size in the layout, type and range of the images in
        fit, its output "embedding" is float32 (n, z).

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
        """
        check_is_fitted(self)
        try:
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "to_onnx needs onnx and onnxscript: pip install 'skfp[onnx]'."
            ) from error
        module = self.to_torch(fold_batch_norm=True)
        decoder: Any = module[0]
        # Two images: a batch of one would be taken for a constant.
        example = torch.zeros(2, *decoder.format.shape, dtype=decoder.dtype)
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["images"],
            output_names=["embedding"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        _remove_stack_traces(path)


def _remove_stack_traces(path: str | os.PathLike[str]) -> None:
    """Remove the exporter's notes on each node, which name folders of this machine."""
    import onnx

    model = onnx.load(path)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    for noted in (*nodes, *model.graph.value_info, *model.graph.initializer, model.graph):
        noted.ClearField("metadata_props")
    onnx.save(model, path)
