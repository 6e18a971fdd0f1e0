"""Where pretrained networks come from: this package, torchvision or timm; cut at a layer."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from .weights import download, fill

_EMBEDDED = Path(__file__).parents[1] / "weights" / "alexnet_relu2.safetensors"
EMBEDDED_LAYERS = tuple(f"features.{i}" for i in range(5))
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TIMM = "timm:"
DEFAULT_LAYERS = {
    "alexnet": "features.4",
    "vgg16": "features.22",
    "resnet18": "layer2",
    "resnet50": "layer2",
    "efficientnet_b0": "features.3",
    "convnext_tiny": "features.3",
}


class Pretrained(NamedTuple):
    """Layers to call in turn, and the mean and deviation of the images they were trained on."""

    layers: list[nn.Module]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def make_pretrained(name: str, layer: str | None, weights: Any, *, empty: bool) -> Pretrained:
    """Make a network up to a layer, named as in `LossNetwork`; if `empty`, without weights."""
    if name.startswith(TIMM):
        return _timm(name, layer, weights, empty)
    layer = layer or DEFAULT_LAYERS.get(name)
    if name == "alexnet" and layer in EMBEDDED_LAYERS:
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
        )[: EMBEDDED_LAYERS.index(layer) + 1]
    if not empty:
        file = _EMBEDDED if weights == "default" else _weights_file("alexnet", weights)
        fill(layers, file, "alexnet", rename=lambda key: key.removeprefix("features."))
    return Pretrained(list(layers))


def _torchvision(name: str, layer: str | None, weights: Any, empty: bool) -> Pretrained:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(
            f"Unknown loss_network {name!r}.{_did_you_mean(name, known)} Expected a name from "
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
    if name == "alexnet":
        return Pretrained([network])
    return Pretrained([network], IMAGENET_MEAN, IMAGENET_STD)


def _weights_file(name: str, weights: Any) -> Path:
    """Find weights by path, by torchvision's name for them, or as "default"."""
    from torchvision import models

    published = models.get_model_weights(name)
    chosen = str(weights).upper()
    if chosen in published.__members__:
        return download(published[chosen].url, name)
    return Path(weights)


def _timm(name: str, layer: str | None, weights: Any, empty: bool) -> Pretrained:
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
    make: Any = {"model_name": model_name, "num_classes": 0}
    with torch.random.fork_rng(devices=[]):
        if weights == "default" and not empty:
            try:
                model = timm.create_model(pretrained=True, **make)
            except Exception as error:  # its hub's client fails in many ways
                raise FileNotFoundError(
                    f"The weights of {name!r} are not there and could not be downloaded ({error}). "
                    "Get the file from timm's page of the model elsewhere, and name it here: "
                    f"LossNetwork({name!r}, weights=...)."
                ) from error
        else:
            # Not on the meta device, where timm's initialisation of some models fails.
            model = timm.create_model(**make)
    network = model.eval() if layer is None else _cut(model, layer, name)
    if weights != "default" and not empty:
        fill(network, Path(weights), name)
    settings: Any = model.pretrained_cfg
    return Pretrained([network], tuple(settings["mean"]), tuple(settings["std"]))


def _cut(model: nn.Module, layer: str | None, name: str) -> fx.GraphModule:
    """Cut a model after a node of its graph, by default the last but one."""
    from torchvision.models import feature_extraction

    try:
        _, nodes = feature_extraction.get_graph_node_names(model, suppress_diff_warning=True)
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
    extractor: Any = feature_extraction.create_feature_extractor(
        model.eval(), {layer: "features"}, suppress_diff_warning=True
    )
    # Only the graph for evaluation, with a tensor as its output, can be pickled.
    graph = extractor.eval_graph
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (output.args[0]["features"],)
    return fx.GraphModule(extractor, graph).eval()


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    return f" Did you mean {' or '.join(map(repr, nearest))}?" if nearest else ""
