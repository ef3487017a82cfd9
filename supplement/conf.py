"""Sphinx configuration of the supplement: executed notebooks as pages, nothing run, nothing
fetched.
"""

import importlib.metadata

project = "ECG-SMART-NET, reproduced"
author = "the authors of the reproduction package"
project_copyright = "MIT licence; data as stated on each page"
release = importlib.metadata.version("ecg-smart-net-reproduction")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
]
nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_default_options = {"members": True, "undoc-members": False, "member-order": "bysource"}
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_preprocess_types = False
templates_path = ["templates"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["supplement.css"]
html_js_files = ["supplement.js"]
html_favicon = "static/favicon.svg"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "use_issues_button": False,
    "use_repository_button": False,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "navbar_persistent": [],
    "article_header_start": ["toggle-primary-sidebar", "breadcrumbs"],
    "article_header_end": ["search-button", "toggle-secondary-sidebar"],
}
html_context = {"default_mode": "light"}
language = "en"
