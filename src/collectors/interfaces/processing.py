"""The processing layer: where data changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from collectors.models import PipelineResult, PipelineStep, ProcessingResult, ProcessingStatistics

__all__ = ["IPipeline", "IProcessingManager", "IProcessor"]


class IProcessor(ABC):
    """One step: takes data, returns data."""

    @abstractmethod
    async def process(self, data: Any) -> ProcessingResult:
        """Process the data; what goes wrong with it is in the result. Raises ValueError for unusable input."""

    @abstractmethod
    def get_processor_name(self) -> str:
        """Return the name that steps, statistics and errors carry."""

    @abstractmethod
    def validate_input(self, data: Any) -> bool:
        """Return whether `process` can work with this input."""


class IPipeline(ABC):
    """Processors in an order."""

    @abstractmethod
    async def add_step(self, processor: IProcessor, order: int) -> str:
        """Add a step and return its id. Raises ValueError when it is no processor, or the order is taken."""

    @abstractmethod
    async def remove_step(self, step_id: str) -> None:
        """Take a step out. Raises KeyError for an unknown id."""

    @abstractmethod
    async def execute(self, input_data: Any) -> PipelineResult:
        """Run the steps in order; a failing step ends the run and is named in the result, never raised."""

    @abstractmethod
    def get_steps(self) -> list[PipelineStep]:
        """Return the steps in the order in which they run."""


class IProcessingManager(ABC):
    """Keeps processors, pipelines and their statistics."""

    @abstractmethod
    async def register_processor(self, processor: IProcessor) -> str:
        """Keep a processor and return its id. Raises ValueError when it is invalid or already there."""

    @abstractmethod
    async def unregister_processor(self, processor_id: str) -> None:
        """Forget a processor. Raises KeyError for an unknown id."""

    @abstractmethod
    async def create_pipeline(self, pipeline_id: str) -> IPipeline:
        """Make an empty pipeline. Raises ValueError when the id exists."""

    @abstractmethod
    async def get_pipeline(self, pipeline_id: str) -> IPipeline:
        """Return a pipeline. Raises KeyError for an unknown id."""

    @abstractmethod
    async def delete_pipeline(self, pipeline_id: str) -> None:
        """Forget a pipeline. Raises KeyError for an unknown id."""

    @abstractmethod
    async def get_statistics(self, pipeline_id: str) -> list[ProcessingStatistics]:
        """Return what happened so far, one entry a step, in order. Raises KeyError for an unknown id."""
