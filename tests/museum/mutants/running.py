"""Bugs of the runtime: retries, several stores, memory, shutdown, schedules."""

from museum__patching import Patch, mutant

SIDE_BY_SIDE = "tests/runtime/test_side_by_side.py::"

MUTANTS = [
    mutant(
        "retry-limit",
        "after one retry the chunk is given up, by default",
        "Fluent Bit",
        "https://github.com/fluent/fluent-bit/issues/309",
        "tests/runtime/test_engine.py::test_a_store_that_is_away_for_a_while",
        "assert store.rows == list(range(10))",
        Patch(
            "runtime.delivery:Edge._retrying",
            "if seq is not None and tried:\n",
            "if seq is not None and tried:\n    return seq\nif False:\n",
        ),
    ),
    mutant(
        "one-store-is-enough",
        "of two outputs one has it, so it is removed from the buffer: the one that was away never gets it",
        "Fluent Bit",
        "https://github.com/fluent/fluent-bit/issues/2850",
        SIDE_BY_SIDE + "test_the_source_is_told_only_what_every_store_has",
        "assert source.committed == []",
        Patch("runtime.flow:Flow._on_durable", "durable = min(", "durable = max("),
    ),
    mutant(
        "one-store-stops-all",
        "a store that is away stops the other stores of the same source",
        "Vector",
        "https://github.com/vectordotdev/vector/issues/14828",
        SIDE_BY_SIDE + "test_a_store_that_is_away_does_not_hold_up_the_other",
        "assert ready.rows == list(range(900))",
        Patch(
            "runtime.flow:Flow._prepare",
            "for edge in self._edges:\n    await edge.queue.put(prepared)\n",
            "for edge in self._edges:\n"
            "    await edge.queue.put(prepared)\n"
            "while prepared.takers:\n"
            "    await asyncio.sleep(0.01)\n",
        ),
    ),
    mutant(
        "one-source-stops-all",
        "one source that cannot be reached ends the whole process; the healthy ones stop with it",
        "OpenTelemetry Collector",
        "https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/51217",
        "tests/runtime/test_engine.py::test_a_failing_source_stops_no_other_and_what_it_gave_is_stored",
        'assert by_name["good"].status == "done"',
        Patch(
            "runtime.supervisor:Supervisor._run",
            "self._on_failure(flow, error)\n",
            "self._on_failure(flow, error)\nself._shutdown.request()\n",
        ),
    ),
    mutant(
        "retry-blocks-shutdown",
        "a stop is not heard while a store is being retried; only SIGKILL helps",
        "Vector",
        "https://github.com/vectordotdev/vector/issues/9739",
        SIDE_BY_SIDE + "test_a_stop_is_heard_while_a_store_is_being_retried",
        "assert heard",
        Patch(
            "runtime.supervisor:Supervisor.run",
            "await race(self._all_ended(), self._shutdown.expired)",
            "await self._all_ended()",
        ),
        Patch(
            "runtime.hooks:Hooks.retrying",
            "if wait is None or self.shutdown.expired.is_set():\n",
            "if wait is None:\n",
        ),
        Patch(
            "runtime.hooks:Hooks.retrying",
            "await race(self.env.sleep(wait), self.shutdown.expired)\n",
            "await self.env.sleep(wait)\n",
        ),
    ),
    mutant(
        "full-buffer-drops",
        "when the buffer is full, metrics are dropped, and nobody is told",
        "Telegraf",
        "https://github.com/influxdata/telegraf/issues/5536",
        SIDE_BY_SIDE + "test_a_full_memory_makes_the_source_wait_and_drops_nothing",
        "assert store.rows == list(range(300))",
        Patch(
            "runtime.flow:Flow._read",
            "size = len(data.raw_data) + OBJECTS\n",
            "size = len(data.raw_data) + OBJECTS\n"
            "if not self._share._budget.fits(self._share, size):\n"
            "    self._seq -= 1\n"
            "    since = data.position\n"
            "    continue\n",
        ),
    ),
    mutant(
        "queue-without-bound",
        "what waits for a slow store is held in memory without a bound, until the process is killed",
        "bucky",
        "https://github.com/trbs/bucky/pull/66",
        "tests/runtime/test_engine.py::test_memory_stays_under_its_budget_with_a_store_that_is_away",
        "<= 400_000",
        Patch("runtime.budget:Budget.fits", "if self.used == 0:\n", "if True:\n"),
    ),
    mutant(
        "cron-twice",
        "a job at 02:30 runs twice when the clocks go back",
        "Kubernetes CronJob",
        "https://github.com/kubernetes/kubernetes/issues/121594",
        "tests/runtime/test_scheduler.py::test_cron_fires_once_a_day_over_a_change_of_clocks",
        "(start.day + n, 4, 30)",
        Patch("runtime.scheduler:_local_zone", "try:\n", "return None\ntry:\n"),
    ),
]
