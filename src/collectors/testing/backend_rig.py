"""What the rules for backends stand on: how the component at test is made, connected and looked after."""

from __future__ import annotations

import asyncio
import functools
import tempfile
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from collectors import registry
from collectors.storage.base import Backend
from collectors.testing.faults import Census, leaks

__all__ = ["BackendRig"]


class BackendRig:
    """The settings and abilities of the backend at test."""

    component: ClassVar[str]
    """The type of the backend, as settings have it."""
    waive: ClassVar[dict[str, str]] = {}
    """Rule (a test's name without `test_`) → why this backend cannot keep it."""
    can_query: ClassVar[bool] = True
    """Whether `query` works."""
    can_delete: ClassVar[bool] = True
    """Whether `delete` works."""
    survives: ClassVar[bool] = True
    """Whether another object with the same settings finds what this one stored."""
    cannot_store: ClassVar[str] = ""
    """Characters that no text in this store can have; rows with them are refused, and not stored by these rules."""
    examples: ClassVar[int] = 100
    """So many random tables and criteria."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for rule, reason in cls.waive.items():
            if not hasattr(cls, f"test_{rule}"):
                raise TypeError(f"{cls.__name__}.waive: there is no rule '{rule}'")
            setattr(
                cls,
                f"test_{rule}",
                pytest.mark.xfail(reason=reason, strict=True)(_copy(getattr(cls, f"test_{rule}"))),
            )

    @abstractmethod
    def settings(self, folder: Path) -> dict[str, Any]:
        """Return settings, without type, for a store of its own in the folder; they must be JSON."""

    def make(self, folder: Path) -> Backend[Any]:
        """Return a new backend object for the store in the folder."""
        backend: Backend[Any] = registry.create("backend", self.component, self.settings(folder))
        return backend

    @asynccontextmanager
    async def connected(self, folder: Path) -> AsyncIterator[Backend[Any]]:
        """Enter a connected backend."""
        backend = self.make(folder)
        await backend.connect()
        try:
            yield backend
        finally:
            await backend.disconnect()

    def run(self, folder: Path, scenario: Callable[[Backend[Any]], Coroutine[Any, Any, None]]) -> None:
        """Run a scenario with a connected backend and see that nothing stays open."""

        async def main() -> None:
            before = Census.take()
            async with self.connected(folder) as backend:
                await scenario(backend)
            left = await leaks(before)
            assert left == [], left

        asyncio.run(main())

    def needs(self, what: type) -> None:
        """Skip the rule where the backend has not got the ability that it is about."""
        if not isinstance(self.make(Path(tempfile.gettempdir()) / "collectors-contract"), what):
            pytest.skip(f"{self.component} is no {what.__name__}")

    def needs_queries(self) -> None:
        """Skip the rule where the backend cannot be queried."""
        if not self.can_query:
            pytest.skip(f"{self.component} cannot be queried")


def _copy(test: Callable[..., None]) -> Callable[..., None]:
    """Return a function of its own, so that a mark on it does not reach other subclasses."""

    @functools.wraps(test)
    def rule(*args: Any, **kwargs: Any) -> None:
        test(*args, **kwargs)

    return rule
