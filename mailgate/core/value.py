"""Values: what is made once and never changed, by the rule that mypy keeps.

A frozen dataclass keeps it at run time, too, and takes five times as long to make for it. Each message makes a dozen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True)
def value(kind: type[_T]) -> type[_T]:
    """A dataclass with slots that can be compared and hashed; to change a field of it is an error for mypy."""
    return dataclass(slots=True, unsafe_hash=True)(kind)
