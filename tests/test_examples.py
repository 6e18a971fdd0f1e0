"""The examples and pages, without running or building them: form, links, and public names.

`make examples` and `make docs` do the rest.
"""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import skfp
import skfp.datasets

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
PAGES = [EXAMPLES.parent / "README.md", *sorted((EXAMPLES / "docs").glob("*.md"))]

# A path from the root, of a drive or of a home folder, at the beginning of a string.
ABSOLUTE_PATH = re.compile(r"/\w|[A-Za-z]:[\\/]|~")


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request):
    """Path and source of an example."""
    return request.param, request.param.read_text()


def _imported_from_skfp(tree):
    """Names in an example and what they stand for, of all that it imports from the package."""
    return {
        alias.asname or alias.name: getattr(importlib.import_module(node.module), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skfp"
        for alias in node.names
    }


def test_there_are_at_least_eight():
    assert len(SCRIPTS) >= 8


def test_is_found_by_the_gallery_and_by_make(script):
    assert script[0].name.startswith("plot_")


def test_compiles(script):
    compile(script[1], script[0].name, "exec")


def test_has_a_title_and_an_introduction(script):
    over, title, under, empty, *prose = ast.get_docstring(ast.parse(script[1])).splitlines()
    assert over == under == "=" * len(title)
    assert empty == ""
    assert prose


def test_consists_of_cells_and_ends_in_a_picture(script):
    cells = script[1].split("\n# %%\n")
    assert len(cells) > 2
    assert "plt.show()" in cells[-1]


def test_names_no_absolute_path(script):
    strings = [
        node.value
        for node in ast.walk(ast.parse(script[1]))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert not [string for string in strings if ABSOLUTE_PATH.match(string)]


def test_uses_the_package_as_it_is(script):
    tree = ast.parse(script[1])
    names = _imported_from_skfp(tree)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) in names
    ]
    assert calls
    for call in calls:
        accepted = inspect.signature(names[call.func.id]).parameters
        keywords = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        assert keywords <= accepted.keys(), call.func.id


def test_uses_public_names_only(script):
    for node in ast.walk(ast.parse(script[1])):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "skfp":
            assert node.module in ("skfp", "skfp.datasets")
            offered = importlib.import_module(node.module).__all__
            assert {alias.name for alias in node.names} <= set(offered)
        if isinstance(node, ast.Attribute):
            assert not re.match("_[^_]", node.attr), node.attr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_links_lead_to_files_and_headings(page):
    """Also where pages are read without being built."""
    for target in re.findall(r"\]\((?!https:)([^)]*)\)", page.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), flags=re.MULTILINE)
            assert anchor in [
                re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings
            ], target


def test_api_page_lists_every_public_name():
    page = (EXAMPLES / "docs" / "api.rst").read_text()
    entries = set(re.findall(r"^   (\w+)$", page, flags=re.MULTILINE))
    assert entries == {*skfp.__all__, *skfp.datasets.__all__}
