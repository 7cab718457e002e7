"""Many small sources as one: what pipelines with the same `group` in several sources get in their place.

Each member is read by itself, on its schedule, over its failures; behind that they share everything that has a price: a
spool, a decode, a commit, a position, a line in the report. So ten thousand sensors cost a few commits a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from collectors.collection.base import Framing, Room, Source, SourceConfig
from collectors.models import CollectedData, Position

__all__ = ["GroupConfig", "SourceGroup"]


class GroupConfig(SourceConfig):
    """What a group is made of; made by the configuration, never written by anybody."""

    members: tuple[Any, ...]
    """The members as components: objects with `make()`."""


class SourceGroup(Source[GroupConfig]):
    """The members of a group. The runtime reads them side by side; `read` is for who wants a sample."""

    def __init__(self, config: GroupConfig | None = None, **settings: Any) -> None:
        super().__init__(config, **settings)
        self.members: list[Source[Any]] = [component.make() for component in self.config.members]

    def format(self) -> str | dict[str, Any]:
        """Return the format that all of them have."""
        return self.members[0].format()

    def share(self, data_format: str, framing: Framing) -> None:
        """Give all of them one codec."""
        for each in (self, *self.members):
            each.data_format, each.framing = data_format, framing

    def needs_spool(self) -> bool:
        """Return True: others have a position of their own and cannot share one."""
        return True

    def poll_interval(self) -> float | None:
        """Return a number, since the members go on; each is read at its own times."""
        return 0.0

    async def open(self) -> None:
        """Connect all members. Raises what the first of them raises that cannot be."""
        for each in self.members:
            await each.connect()

    async def disconnect(self) -> None:
        """Disconnect all members."""
        await super().disconnect()
        for each in self.members:
            await each.disconnect()

    async def read(self, since: Position | None) -> AsyncIterator[CollectedData | Room]:
        """Yield what each member gives, once, one after the other."""
        for each in self.members:
            async for data in each.stream(None):
                yield data
