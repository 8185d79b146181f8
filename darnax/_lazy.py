"""Modules that are imported when they are used.

`import darnax` is to take no longer than JAX and Equinox themselves; SciPy, networkx and jraph
would double it, and many programs never need them.
"""

import importlib
from typing import Any


class Lazy:
    """A module by its name, imported when the first of its attributes is asked for."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Python calls this only for attributes that are not found here, so never for `_name`. A
        # module that was imported before is looked up in a dictionary.
        return getattr(importlib.import_module(self._name), attribute)
