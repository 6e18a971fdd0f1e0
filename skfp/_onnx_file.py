"""ONNX files of fitted encoders: what is noted in them, and how they run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np

from ._images.formats import ImageFormat

INPUT, OUTPUT = "images", "embedding"
# Of what is noted: raised when older versions could not read it.
NOTES_FORMAT = 1
_KEY = "skfp"


@dataclasses.dataclass(frozen=True)
class Notes:
    """What a file says about the encoder in it.

    Parameters
    ----------
    version : str
        The version of skfp that wrote the file.
    estimator : str
        Class of the encoder.
    format : ImageFormat
        Of the images in fit.
    feature_names_in : list of str or None
        Column names of flattened images.
    feature_names_out : list of str
        Names of the numbers of an embedding.
    dtype : str, default="float32"
        Type of the weights in the file.
    """

    version: str
    estimator: str
    format: ImageFormat
    feature_names_in: list[str] | None
    feature_names_out: list[str]
    dtype: str = "float32"

    def to_metadata(self) -> dict[str, str]:
        """Return the notes as metadata of an ONNX model."""
        notes = {"notes_format": NOTES_FORMAT, **dataclasses.asdict(self)}
        return {_KEY: json.dumps({**notes, "format_fingerprint": _fingerprint(notes["format"])})}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], path: Any) -> Self:
        """Read notes; refuse those of other programs and of later versions."""
        if _KEY not in metadata:
            raise ValueError(
                f"{str(path)!r} does not say how its images are read. Expected a file that "
                "`to_onnx` of skfp 0.2 or newer has written: write it again, or run it with "
                "onnxruntime itself."
            )
        try:
            notes = json.loads(metadata[_KEY])
            if notes["notes_format"] > NOTES_FORMAT:
                raise ValueError(f"it was written by skfp {notes['version']}, upgrade skfp")
            if _fingerprint(notes["format"]) != notes["format_fingerprint"]:
                raise ValueError("the format of its images was altered")
            format: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in notes["format"].items()
            }
            names = {field.name for field in dataclasses.fields(cls)}
            fields = {name: value for name, value in notes.items() if name in names}
            return cls(**{**fields, "format": ImageFormat(**format)})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{str(path)!r} cannot be used: {error}.") from error


class OnnxFile:
    """An encoder in memory, which runs in any process that it is pickled into.

    Parameters
    ----------
    content : bytes
        The file.
    path : str or path-like
        Its name in messages.
    n_jobs : int or None
        Number of threads of a run. None is as many as OMP_NUM_THREADS says, which joblib sets in
        its worker processes, or all processors.
    """

    def __init__(self, content: bytes, path: Any, n_jobs: int | None) -> None:
        self._content, self._path, self._n_jobs = content, path, n_jobs
        self._session = session = _start(content, path, n_jobs)
        self._float_session: Any = None
        self.notes = Notes.from_metadata(session.get_modelmeta().custom_metadata_map, path)
        if [one.name for one in (*session.get_inputs(), *session.get_outputs())] != [INPUT, OUTPUT]:
            raise ValueError(f"{str(path)!r} cannot be used: its inputs or outputs were altered.")

    @classmethod
    def read(cls, path: str | os.PathLike[str], n_jobs: int | None) -> Self:
        """Read a file."""
        return cls(Path(path).read_bytes(), path, n_jobs)

    def __reduce__(self) -> tuple:
        return type(self), (self._content, self._path, self._n_jobs)

    @property
    def takes_uint8(self) -> bool:
        """Whether the graph takes images of 8 bits as they are."""
        return self._session.get_inputs()[0].type == "tensor(uint8)"

    def run(self, images: np.ndarray) -> np.ndarray:
        """Embed images, uint8 as it is or float32, in the layout and range of those in fit."""
        session = self._session
        if images.dtype == np.float32 and session.get_inputs()[0].type != "tensor(float)":
            if self._float_session is None:
                content = _with_float_input(self._content)
                self._float_session = _start(content, self._path, self._n_jobs)
            session = self._float_session
        (embedding,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(images)})
        return embedding


def _start(content: bytes, path: Any, n_jobs: int | None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("OnnxEncoder needs onnxruntime: pip install 'skfp[serve]'.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = (
        int(os.environ.get("OMP_NUM_THREADS") or joblib.cpu_count())
        if n_jobs is None
        else joblib.effective_n_jobs(n_jobs)
    )
    options.log_severity_level = 3  # errors
    # Else sums of products in int8 overflow on processors without VNNI instructions.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of ONNX Runtime's own, without a common one
        raise ValueError(f"{str(path)!r} is not an ONNX file that can be run: {error}") from error


def _with_float_input(content: bytes) -> bytes:
    """Declare the input of a graph float32 instead of uint8 or bool.

    An input has one type, but what our graphs do first takes any: they move axes, then convert to
    float32. So they embed floats without rounding them to 8 bits.
    """
    # In protobuf: the name of the input, its type, and in that the type of its elements.
    declared = rb"(\n.%s\x12.\n.\x08)[\x02\x09]" % INPUT.encode()
    float32 = lambda match: match[1] + b"\x01"  # noqa: E731
    changed, n_changes = re.subn(declared, float32, content, flags=re.DOTALL)
    if n_changes != 1:
        raise ValueError("The input of the ONNX file was altered: write the file again.")
    return changed


def _fingerprint(format: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(format, sort_keys=True).encode()).hexdigest()[:16]
