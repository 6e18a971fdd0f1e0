"""Sphinx configuration: the user guide, the gallery of examples and the API pages."""

import re
from pathlib import Path

import skfp

_EXAMPLES = Path(__file__).resolve().parent.parent

project = "skfp"
author = "the skfp developers"
release = skfp.__version__
copyright = author

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "myst_parser",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
default_role = "literal"

# The template of classes lists their methods in full.
numpydoc_show_class_members = False
autodoc_typehints = "none"

myst_heading_anchors = 3
# Quotes in text are mostly those of Python.
smartquotes = False

sphinx_gallery_conf = {
    "examples_dirs": str(_EXAMPLES),
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skfp"
# Without a table of contents on the right, tables have room.
html_theme_options = {"show_prev_next": False, "secondary_sidebar_items": []}
html_sidebars = {"**": ["sidebar-nav-bs"], "contributing": []}


def _link_to_gallery(app, docname, source):
    """Turn links to the source of an example, which work anywhere, into links to its page."""
    source[0] = re.sub(r"\]\(\.\./(plot_\w+)\.py\)", r"](gallery/\1.rst)", source[0])


def setup(app):
    """Register what this guide adds to Sphinx."""
    app.connect("source-read", _link_to_gallery)
