"""How the site is built: `make site`."""

from __future__ import annotations

import earteach

project = "earteach"
version = release = earteach.__version__
copyright = "the authors of earteach"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "earteach"
html_show_sphinx = False
html_copy_source = False
templates_path: list[str] = []
exclude_patterns = ["examples"]

nitpicky = True
# Types of other packages, of which no index is fetched.
nitpick_ignore_regex = [("py:.*", r"(?!earteach\.).*")]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
add_module_names = False
