"""Sphinx configuration. `directives` generates what must not drift from the code."""

import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

project = "dhtos"
author = "dhtos authors"
copyright = "dhtos authors"
version = release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"][
    "version"
]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "directives"]
exclude_patterns = ["_build", "changelog.d"]
nitpicky = False

smartquotes = False  # options are shown as they are typed

html_theme = "furo"
html_title = "dhtos"
html_copy_source = False

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autoclass_content = "class"
python_use_unqualified_type_names = True
