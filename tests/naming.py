"""Names of tests, which are the same in all processes that share them."""

from __future__ import annotations

import re
from typing import Any


def without_address(thing: Any) -> str:
    """What ``str`` gives, without the addresses of objects in it."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(thing))
