"""Commits whose answer gets lost: the connection dies when the store has done its work and before it can say so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from collectors.chunks import Delivery
from collectors.config.model import Component, PipelineConfig
from collectors.errors import TransientError
from collectors.storage.base import CommitsTogether, KeepsPosition

__all__ = ["LostAnswers"]


class LostAnswers:
    """Lets the answer of one commit get lost at each backend that can be asked what it has stored.

    `config` is the pipeline with such backends; `lost` counts the answers that got lost.
    """

    def __init__(self, config: PipelineConfig, number: int | None) -> None:
        self.lost = 0
        self.config = config
        if number is not None:
            backends = {name: self._unsure(each, number) for name, each in config.backends.items()}
            self.config = replace(config, backends=backends)

    def _unsure(self, component: Component, number: int) -> Component:
        backend = component.make()
        if not isinstance(backend, KeepsPosition):
            return component
        made: Any = backend
        left = [number]
        made.commit = self._losing(backend.commit, left)
        if isinstance(backend, CommitsTogether):
            made.commit_together = self._losing_all(backend.commit_together, left)
        return replace(component, instance=made)

    def _losing(self, commit: Callable[[Delivery], int], left: list[int]) -> Callable[[Delivery], int]:
        def losing(delivery: Delivery) -> int:
            seq = commit(delivery)
            if seq == delivery.key.seq:  # else it is in a buffer of this process; no connection could die
                self._lose(left, 1)
            return seq

        return losing

    def _losing_all(
        self, commit: Callable[[Sequence[Delivery]], list[int]], left: list[int]
    ) -> Callable[[Sequence[Delivery]], list[int]]:
        def losing(deliveries: Sequence[Delivery]) -> list[int]:
            seqs = commit(deliveries)
            self._lose(left, len(deliveries))
            return seqs

        return losing

    def _lose(self, left: list[int], count: int) -> None:
        before = left[0]
        left[0] -= count
        if left[0] <= 0 < before:
            self.lost += 1
            raise TransientError("the connection died before the answer of the commit")
