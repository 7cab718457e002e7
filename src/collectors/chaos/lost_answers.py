"""Commits whose answer gets lost: the connection dies when the store has done its work and before it can say so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from collectors.chunks import Delivery
from collectors.config.model import Component, PipelineConfig
from collectors.errors import TransientError
from collectors.storage.base import KeepsPosition

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
        made.commit = self._losing(backend.commit, number)
        return replace(component, instance=made)

    def _losing(self, commit: Callable[[Delivery], int], number: int) -> Callable[[Delivery], int]:
        left = [number]

        def losing(delivery: Delivery) -> int:
            seq = commit(delivery)
            if seq < delivery.key.seq:
                return seq  # it is in a buffer of this process; no connection could die
            left[0] -= 1
            if left[0] == 0:
                self.lost += 1
                raise TransientError("the connection died before the answer of the commit")
            return seq

        return losing
