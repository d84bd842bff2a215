"""Sphinx's settings."""

from importlib.metadata import version as _version

project = "caseexec"
author = "the caseexec developers"
copyright = "2026, the caseexec developers"
release = _version("caseexec")
version = release

extensions = ["sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "Python suites against real services", "fixed_sidebar": True}

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
nitpicky = False
# Links into Python's manual need the network; without it they stay plain names.
intersphinx_mapping = {}
