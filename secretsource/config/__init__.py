"""secretsource.toml: clients, environments and stores as plain values. No secret belongs in it, and none is accepted.

What holds for a client: `clients.C.environments.E` over `clients.C` over `environments.E` over `defaults`, key by key;
`extra`, `profile`, `rotation`, its `settings` and each store are laid over one another by their own keys. In every
text `{client}` and `{environment}` stand for the two names, and nothing else may stand in braces (in `extra`, other
braces stay).
Relative paths, and relative `file:` references, begin in the folder of the file.
"""

from __future__ import annotations

from .file import asked_environment, loaded, located
from .layers import DURATIONS, KEYS, ROTATION, Configuration
from .settings import Setting, Settings

__all__ = [
    "DURATIONS",
    "KEYS",
    "ROTATION",
    "Configuration",
    "Setting",
    "Settings",
    "asked_environment",
    "loaded",
    "located",
]
