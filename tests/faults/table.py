"""The whole matrix."""

from __future__ import annotations

from .discovery_rows import discovery_rows, proxy_rows
from .store_rows import store_rows
from .token_rows import token_rows

ROWS = [*token_rows(), *discovery_rows(), *proxy_rows(), *store_rows()]
