"""From a configured pipeline to its parts: sources with their framing, codecs, pipelines of processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collectors import registry
from collectors.codecs.base import Codec
from collectors.collection.base import Source
from collectors.collection.group import SourceGroup
from collectors.config.model import PipelineConfig, Route
from collectors.errors import ConfigurationError
from collectors.processing.pipeline import Pipeline

__all__ = ["make_codecs", "make_pipeline", "make_sources"]


def make_sources(config: PipelineConfig) -> dict[str, Source[Any]]:
    """Return the sources by id, each with the codec of its format as its framing."""
    sources: dict[str, Source[Any]] = {}
    for name, component in config.sources.items():
        source = component.make()
        if not isinstance(source, Source):
            raise ConfigurationError(
                f"{component.where}: {type(source).__name__} must be a subclass of "
                "collectors.collection.base.Source to run in a pipeline"
            )
        spec = source.format()
        settings = {"type": spec} if isinstance(spec, str) else dict(spec)
        source.data_format = settings.pop("type")
        source.framing = registry.create("codec", source.data_format, settings)
        if isinstance(source, SourceGroup):
            source.share(source.data_format, source.framing)
        sources[name] = source
    return sources


def make_codecs(source: Source[Any]) -> Callable[[str], Codec[Any]]:
    """Return what finds the codec of a chunk: the source's own for its format, others with default settings."""
    codecs: dict[str, Codec[Any]] = {}
    if isinstance(source.framing, Codec):
        codecs[source.data_format] = source.framing

    def codec_for(data_format: str) -> Codec[Any]:
        if data_format not in codecs:
            codecs[data_format] = registry.create("codec", data_format, {})
        return codecs[data_format]

    return codec_for


def make_pipeline(route: Route) -> Pipeline:
    """Return a new pipeline with new instances of the route's processors."""
    pipeline = Pipeline()
    for component in route.processors:
        pipeline.append(component.make(), component.where)
    return pipeline
