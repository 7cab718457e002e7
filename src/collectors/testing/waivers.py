"""Rules of a contract that a component cannot keep: waived by name with the reason, and then they have to fail."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest

__all__ = ["waive_rules"]


def waive_rules(cls: type, waivers: Mapping[str, str]) -> None:
    """Mark tests of this class, by their names without `test_`, as failing for the reason; strictly.

    A waiver that is no longer needed fails, and so does one for a rule that does not exist (TypeError). The mark is put
    on copies: the contract's own tests stay as they are for other subclasses.
    """
    for rule, reason in waivers.items():
        test = getattr(cls, f"test_{rule}", None)
        if test is None:
            raise TypeError(f"{cls.__name__}.waive: there is no rule '{rule}'")
        setattr(cls, f"test_{rule}", pytest.mark.xfail(reason=reason, strict=True)(_copy(test)))


def _copy(test: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(test)
    def waived(*args: Any, **kwargs: Any) -> None:
        test(*args, **kwargs)

    return waived
