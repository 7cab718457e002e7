"""Properties P5 and P6 of the specification: any steps, any input, and what comes of steps that fail."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.interfaces import IProcessor
from collectors.mocks import MockProcessor
from collectors.models import PipelineResult, ProcessingResult
from collectors.processing.manager import FunctionProcessor
from collectors.processing.pipeline import Pipeline

several = settings(max_examples=150, deadline=None)

odd_texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\t\n", "a/b", "../..", "ä\u0301", "\ud800", "\0", "a" * 10_000, "{source}", "'"]
    ),
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | odd_texts | st.binary(max_size=20)
odd_data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(odd_texts, inner, max_size=4)
        | st.dictionaries(st.tuples(st.integers()), inner, max_size=2)
        | st.tuples(inner)
    ),
    max_leaves=12,
) | st.sampled_from(
    [object(), ..., int, b"\xff" * 100_000, "x" * 100_000, 10**400, list(range(10_000)), {1, 2}]
)


class Raises(IProcessor):
    """A third-party step that breaks the interface in one of many ways."""

    def __init__(self, name, how):
        self.name, self.how = name, how

    async def process(self, data):
        if isinstance(self.how, Exception):
            raise self.how
        return self.how

    def get_processor_name(self):
        return self.name

    def validate_input(self, data):
        if self.how == "validate":
            raise KeyError("validate")
        return self.how != "refuse"


def raising(error):
    def fail(data):
        raise error

    return fail


errors = st.sampled_from(
    [ValueError("bad"), KeyError("k"), StopIteration(), OSError(5, "disk"), RecursionError(), Exception()]
)
good_steps = st.one_of(
    st.builds(lambda name: MockProcessor(name), odd_texts),
    st.builds(lambda name: FunctionProcessor(lambda data: {"made": repr(data)[:10]}, name), odd_texts),
    st.builds(lambda name: Raises(name, ProcessingResult(True, {"a": 1}, None, 0.0)), odd_texts),
)
bad_steps = st.one_of(
    st.builds(lambda name: MockProcessor(name, should_fail=True), odd_texts),
    st.builds(lambda name, error: FunctionProcessor(raising(error), name), odd_texts, errors),
    st.builds(Raises, odd_texts, errors | st.sampled_from(["validate", "refuse", None, 7, {}])),
)


async def pipeline_of(steps):
    pipeline = Pipeline()
    for order, step in enumerate(steps):
        await pipeline.add_step(step, order)
    return pipeline


@several
@given(steps=st.lists(good_steps | bad_steps, max_size=5), data=odd_data)
def test_p05_executing_gives_data_or_an_error(steps, data):
    async def main():
        result = await (await pipeline_of(steps)).execute(data)
        assert isinstance(result, PipelineResult)
        assert len(result.step_results) <= len(steps)
        assert result.total_time >= 0
        if result.success:
            assert (result.failed_step, [step.success for step in result.step_results].count(False)) == (
                None,
                0,
            )
            assert result.final_data is not None or data is None
            assert steps or result.final_data is data
        else:
            assert result.final_data is None
            assert result.failed_step is not None
            assert result.step_results[-1].error

    asyncio.run(main())


@several
@given(
    before=st.lists(good_steps, max_size=3), bad=bad_steps, after=st.lists(good_steps | bad_steps, max_size=2)
)
def test_p06_a_failing_step_is_named_with_details(before, bad, after):
    async def main():
        pipeline = await pipeline_of([*before, bad, *after])
        result = await pipeline.execute({"a": 1})
        assert not result.success
        assert [step.success for step in result.step_results] == [True] * len(before) + [False]
        assert result.failed_step == pipeline.step_names()[len(before)]
        assert result.failed_step.startswith(bad.get_processor_name())
        assert isinstance(result.step_results[-1].error, str)
        assert result.step_results[-1].error

    asyncio.run(main())
