"""Sphinx: the site is Markdown (MyST) with the furo theme."""

from tomogen._version import __version__

project = "tomogen"
author = "the tomogen authors"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "tomogen"
html_static_path = []
exclude_patterns = ["_build"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
