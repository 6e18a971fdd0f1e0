"""Nothing in the package can be made to run code that a file holds.

joblib.Memory, behind the estimators' `memory`, is the documented exception: it keeps pickles.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import skfp

AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
PACKAGE = Path(skfp.__file__).parent
CODE_IN_DATA = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml"}
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
# Calls by their last name, and what makes them harmless.
LOADERS = {
    "torch.load": ("weights_only", True),
    "numpy.load": ("allow_pickle", False),
    "joblib.load": None,
    "torch.jit.load": None,
    "torch.hub.load": None,
    "pandas.read_pickle": None,
    "os.system": None,
}


def dangers(source: str) -> list[str]:
    """List what could run code from data, with its line."""
    tree = ast.parse(source)
    names = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                if alias.name.split(".")[0] in CODE_IN_DATA:
                    found.append(f"{node.lineno}: import of {alias.name}")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            if (node.module or "").split(".")[0] in CODE_IN_DATA:
                found.append(f"{node.lineno}: import of {node.module}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        first, _, rest = name.partition(".")
        name = ".".join(filter(None, [names.get(first, first), rest]))
        arguments = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        safe = LOADERS.get(name, ())
        if (
            name in RUNS_CODE
            or name.endswith(".extractall")
            or safe is None
            or (safe and arguments.get(safe[0]) is not safe[1])
            or arguments.get("shell")
            or arguments.get("allow_pickle")
        ):
            found.append(f"{node.lineno}: call of {name}")
    return found


def dotted(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return f"{dotted(function.value)}.{function.attr}"
    return function.id if isinstance(function, ast.Name) else "?"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_the_package_runs_no_code_from_files(path):
    assert dangers(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml as y; y.load(f)",
        "eval('1')",
        "exec(code)",
        "import torch; torch.load(path)",
        "import torch; torch.load(path, weights_only=False)",
        "from torch import load; load(path)",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "import numpy as np; np.load(path)",
        "from joblib import load; load(path)",
        "import joblib; joblib.load(path)",
        "archive.extractall(folder)",
        "import subprocess; subprocess.run(line, shell=True)",
    ],
)
def test_dangers_are_found(source):
    assert dangers(source)


SOUND = {"name": "sound", "version": "1.0", "vulns": []}
BROKEN = {"name": "broken", "version": "2.0", "vulns": [{"id": "CVE-1"}, {"id": "CVE-2"}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        ([SOUND, UNKNOWN], 0, ["pip-audit: 0 of 1 packages"]),
        ([SOUND, BROKEN], 1, ["broken 2.0 is vulnerable: CVE-1, CVE-2", "1 of 2 packages"]),
        ([UNKNOWN], 0, ["nothing was looked up", "none of 1 packages"]),
        (None, 0, ["nothing was looked up", "no route"]),
    ],
    ids=["sound", "vulnerable", "unknown", "no answer"],
)
def test_audit_fails_for_vulnerabilities_alone(tmp_path, answer, status, words):
    """A stand-in says what pip-audit would, as its service cannot be made to."""
    stand_in = "import sys; sys.exit('no route')"
    if answer is not None:
        stand_in = f"print({json.dumps({'dependencies': answer})!r})"
    (tmp_path / "pip_audit.py").write_text(stand_in)

    audited = subprocess.run(
        [sys.executable, AUDIT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    assert audited.returncode == status
    assert all(word in audited.stdout for word in words)
    assert len(audited.stdout.splitlines()) == (2 if status else 1)
