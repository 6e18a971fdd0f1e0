"""Where pretrained networks come from: this package, torchvision or timm; cut at a layer."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable
from functools import partial
from importlib import import_module
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional as F

from . import efficientnet_lite
from .weights import download, fill

_EMBEDDED = Path(__file__).parents[1] / "weights"
EMBEDDED_LAYERS = {
    "alexnet": tuple(f"features.{i}" for i in range(5)),
    "efficientnet_lite0": efficientnet_lite.LAYERS,
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = "timm:"
DEFAULT_LAYERS = {
    "alexnet": "features.4",
    "efficientnet_lite0": "pooled",
    "vgg16": "features.22",
    "resnet18": "layer2",
    "resnet50": "layer2",
    "efficientnet_b0": "features.3",
    "convnext_tiny": "features.3",
}


class Pretrained(NamedTuple):
    """Layers to call in turn, and what is known of their input and output.

    Parameters
    ----------
    layers : list of nn.Module
    mean, std : tuple of float or None
        Of the images that they were trained on.
    side : int or None
        Shorter side in pixels that they do best with, if images are to be resized by default.
    rectified : bool
        Whether they end in a ReLU.
    n_prefix : int or None
        Number of tokens before those of places, the first of which stands for the image.
    channels_last : bool
        Whether their maps are (b, rows, columns, channels).
    """

    layers: list[nn.Module]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    side: int | None = None
    rectified: bool = False
    n_prefix: int | None = None
    channels_last: bool = False


def make_pretrained(
    name: str, layer: str | None, weights: Any, *, tokens: bool = False, empty: bool = False
) -> Pretrained:
    """Make a network up to a layer, named as in `LossNetwork`.

    If `tokens`, a transformer without a layer ends in all tokens; if `empty`, it has no weights.
    """
    if name.startswith(TIMM):
        return _timm(name, layer, weights, tokens, empty)
    layer = layer or DEFAULT_LAYERS.get(name)
    if name == "efficientnet_lite0":
        return _efficientnet_lite0(layer, weights, empty)
    if name == "alexnet" and layer in EMBEDDED_LAYERS[name]:
        return _alexnet(layer, weights, empty)
    return _torchvision(name, layer, weights, empty)


def _alexnet(layer: str, weights: Any, empty: bool) -> Pretrained:
    """Make the paper's network; its weights come with this package."""
    # The meta device initialises nothing, so the user's random state stays as it is.
    with torch.device("meta"):
        layers = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=11, stride=4, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(kernel_size=3, stride=2),
            nn.Conv2d(64, 192, kernel_size=5, padding=2),
            nn.ReLU(inplace=True),
        )[: EMBEDDED_LAYERS["alexnet"].index(layer) + 1]
    if not empty:
        embedded = _EMBEDDED / "alexnet_relu2.safetensors"
        file = embedded if weights == "default" else _weights_file("alexnet", weights)
        fill(layers, file, "alexnet", rename=lambda key: key.removeprefix("features."))
    return Pretrained(list(layers), rectified=not isinstance(layers[-1], nn.Conv2d))


def _efficientnet_lite0(layer: Any, weights: Any, empty: bool) -> Pretrained:
    """Make the teacher for photographs; its weights come with this package."""
    known = efficientnet_lite.LAYERS
    if layer not in known:
        raise ValueError(
            f"'efficientnet_lite0' has no layer {layer!r}.{_did_you_mean(layer, known)} Expected "
            f"one of {', '.join(known)}."
        )
    with torch.device("meta"):
        network = efficientnet_lite.efficientnet_lite0(layer)
    if not empty:
        embedded = _EMBEDDED / "efficientnet_lite0.safetensors"
        fill(network, embedded if weights == "default" else Path(weights), "efficientnet_lite0")
    half = (0.5, 0.5, 0.5)
    return Pretrained([network], half, half, side=128, rectified=layer in ("stem", "head"))


def _torchvision(name: str, layer: str | None, weights: Any, empty: bool) -> Pretrained:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        hint = _did_you_mean(name, ["photo", *EMBEDDED_LAYERS, *known])
        raise ValueError(
            f"Unknown loss_network {name!r}.{hint} Expected a name from "
            'skfp.loss_networks(), any model of torchvision.models.list_models(), "timm:NAME", a '
            "path to a weights file that ends in .safetensors, .pt or .pth, a torch.nn.Module or a "
            "function from images to tensors."
        )
    # With torchvision's weights, these two scale images themselves.
    scaling = {"transform_input": True} if name in ("googlenet", "inception_v3") else {}
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                model = models.get_model(name, weights=None, **scaling)
        except NotImplementedError:  # some calculate their widths with tensors
            model = models.get_model(name, weights=None, **scaling)
    network = _cut(model, layer, name)
    if not empty:
        fill(network, _weights_file(name, weights), name)
    # In the paper, AlexNet takes images on the unit scale.
    scaled = name != "alexnet"
    return Pretrained(
        [network],
        IMAGENET_MEAN if scaled else None,
        IMAGENET_STD if scaled else None,
        rectified=_ends_in_relu(network),
        n_prefix=1 if isinstance(model, models.VisionTransformer) else None,
        channels_last=isinstance(model, models.SwinTransformer),
    )


def _weights_file(name: str, weights: Any) -> Path:
    """Find weights by path, by torchvision's name for them, or as "default"."""
    from torchvision import models

    published = models.get_model_weights(name)
    chosen = str(weights).upper()
    if chosen in published.__members__:
        return download(published[chosen].url, name)
    return Path(weights)


def _timm(name: str, layer: str | None, weights: Any, tokens: bool, empty: bool) -> Pretrained:
    try:
        import timm
    except ImportError as error:
        raise ImportError(f"loss_network {name!r} needs timm: pip install 'skfp[timm]'.") from error
    model_name = name.removeprefix(TIMM)
    if not timm.is_model(model_name):
        hint = _did_you_mean(model_name, timm.list_models())
        raise ValueError(
            f"Unknown loss_network {name!r}.{hint} Expected a model of timm.list_models()."
        )
    with torch.random.fork_rng(devices=[]):
        if weights == "default" and not empty:
            try:
                model = _create_timm(model_name, pretrained=True)
            except Exception as error:  # its hub's client fails in many ways
                raise FileNotFoundError(
                    f"The weights of {name!r} are not there and could not be downloaded ({error}). "
                    "Get the file from timm's page of the model elsewhere, and name it here: "
                    f"LossNetwork({name!r}, weights=...)."
                ) from error
        else:
            # Not on the meta device, where timm's initialisation of some models fails.
            model = _create_timm(model_name, pretrained=False)
    # Of transformers only, 0 where no token stands for the image.
    n_prefix = getattr(model, "num_prefix_tokens", None)
    if tokens and layer is None and n_prefix is not None:
        model.reset_classifier(0, global_pool="")
    network = model.eval() if layer is None else _cut(model, layer, name)
    if weights != "default" and not empty:
        fill(network, Path(weights), name)
    settings: Any = model.pretrained_cfg
    return Pretrained(
        [network],
        tuple(settings["mean"]),
        tuple(settings["std"]),
        rectified=layer is not None and _ends_in_relu(network),
        n_prefix=n_prefix,
        channels_last=getattr(model, "output_fmt", None) == "NHWC",
    )


def _create_timm(name: str, *, pretrained: bool) -> Any:
    """Create a model without its classifier, for images of any size where it can take them."""
    import timm

    create: Any = partial(timm.create_model, name, pretrained=pretrained, num_classes=0)
    if timm.get_pretrained_cfg_value(name, "fixed_input_size"):
        # Which of these a transformer takes depends on its class.
        with contextlib.suppress(TypeError):
            return create(dynamic_img_size=True, dynamic_img_pad=True)
        with contextlib.suppress(TypeError):
            return create(dynamic_img_size=True)
    return create()


def _cut(model: nn.Module, layer: str | None, name: str) -> fx.GraphModule:
    """Cut a model after a node of its graph, by default the last but one."""
    # timm knows which of its layers cannot be traced.
    is_timm = name.startswith(TIMM)
    graphs: Any = import_module(
        "timm.models" if is_timm else "torchvision.models.feature_extraction"
    )
    quiet = {} if is_timm else {"suppress_diff_warning": True}
    try:
        _, nodes = graphs.get_graph_node_names(model, **quiet)
    except Exception as error:  # tracing runs the model's own code
        raise ValueError(
            f"The graph of {name!r} cannot be read ({error}), so it cannot be cut at layer="
            f"{layer!r}. Pass a torch.nn.Module of your own that returns the features."
        ) from error
    if layer is None:
        layer = nodes[-2]
    # "layer2" is the last node whose name begins with it.
    names = {prefix for node in nodes for prefix in accumulate(node.split("."), "{}.{}".format)}
    if layer not in names:
        raise ValueError(
            f"{name!r} has no layer {layer!r}.{_did_you_mean(layer, sorted(names))} Expected a "
            "node of its graph, as torchvision.models.feature_extraction.get_graph_node_names "
            f"lists them: {', '.join(nodes[1:4])}, ..., {', '.join(nodes[-3:])}."
        )
    extractor: Any = graphs.create_feature_extractor(model.eval(), {layer: "features"}, **quiet)
    # Only the graph for evaluation, with a tensor as its output, can be pickled.
    graph = extractor.eval_graph
    output = graph.output_node()
    output.args = (output.args[0]["features"],)
    return fx.GraphModule(extractor, graph).eval()


def _ends_in_relu(network: Any) -> bool:
    """Whether the output of a graph is that of a ReLU, or a max pool of it."""
    node = network.graph.output_node().args[0]
    while node.op == "call_module" and isinstance(
        network.get_submodule(node.target), nn.MaxPool2d | nn.Identity
    ):
        node = node.args[0]
    if node.op == "call_module":
        return isinstance(network.get_submodule(node.target), nn.ReLU | nn.ReLU6)
    return node.target in (torch.relu, torch.relu_, F.relu, F.relu6, "relu", "relu_")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    return f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
