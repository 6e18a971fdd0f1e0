"""Sphinx configuration: the gallery of examples and the API pages."""

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
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
default_role = "literal"

# The template of classes lists their methods in full.
numpydoc_show_class_members = False
autodoc_typehints = "none"

sphinx_gallery_conf = {
    "examples_dirs": str(_EXAMPLES),
    "gallery_dirs": "gallery",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "skfp"
html_theme_options = {"show_prev_next": False}
html_sidebars = {"**": ["sidebar-nav-bs"]}
