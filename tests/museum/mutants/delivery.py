"""Bugs of the commit: position, rows, letters and the fence between two owners."""

from museum__patching import Patch, mutant

MUTANTS = [
    mutant(
        "position-before-rows",
        "the position is committed, then the rows: a crash between the two loses them",
        "OpenTelemetry filelog",
        "https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/31074",
        "tests/storage/backends/test_backend_sqlite.py::TestSqlite::test_dying_at_any_moment_loses_and_doubles_nothing",
        "assert losses == []",
        Patch(
            "storage.sqlite_store:DeliveryTables.commit_together",
            "store_rows([delivery for _, delivery in fresh])\n",
            "self._move_on(fresh)\n"
            "self._database.execute('commit')\n"
            "self._database.execute('begin immediate')\n"
            "store_rows([delivery for _, delivery in fresh])\n",
        ),
    ),
    mutant(
        "position-beside-rows",
        "the rows are committed, then the position: a crash between the two stores them twice",
        "dlt",
        "https://github.com/dlt-hub/dlt/issues/4052",
        "tests/storage/backends/test_backend_sqlite.py::TestSqlite::test_dying_at_any_moment_loses_and_doubles_nothing",
        "assert losses == []",
        Patch(
            "storage.sqlite_store:DeliveryTables.commit_together",
            "store_rows([delivery for _, delivery in fresh])\n",
            "store_rows([delivery for _, delivery in fresh])\n"
            "self._database.execute('commit')\nself._database.execute('begin immediate')\n",
        ),
    ),
    mutant(
        "state-although-load-failed",
        "the state moves on although the load failed: its rows are never sent again",
        "Airbyte",
        "https://github.com/airbytehq/airbyte/pull/34869",
        "tests/runtime/test_engine.py::test_a_store_that_is_away_for_a_while",
        "assert store.rows == list(range(10))",
        Patch(
            "runtime.delivery:Edge._commit",
            "if delivery.table.num_rows and not written:\n"
            "    await self.backend.call(self.backend.write, delivery.table, delivery.key)\n",
            "await self._put(delivery)\n"
            "if delivery.table.num_rows:\n"
            "    await self.backend.call(self.backend.write, delivery.table, delivery.key)\n"
            "return delivery.key.seq\n",
        ),
    ),
    mutant(
        "no-epoch",
        "an owner that lost the flow still commits: a late acknowledgement after the partition was revoked",
        "Redpanda Connect",
        "https://github.com/redpanda-data/connect/pull/4477",
        "tests/storage/backends/test_backend_sqlite.py::TestSqlite::test_an_older_epoch_is_fenced",
        "DID NOT RAISE",
        Patch("storage.positions:check_follows", "if stored.epoch != key.epoch:\n", "if False:\n"),
    ),
    mutant(
        "gap-accepted",
        "a commit behind a gap is taken: what lay in between is skipped (10,433 records in one rebalance)",
        "Redpanda Connect",
        "https://github.com/redpanda-data/connect/pull/4009",
        "tests/storage/backends/test_backend_sqlite.py::TestSqlite::test_a_gap_is_refused",
        "DID NOT RAISE",
        Patch("storage.positions:check_follows", "if stored.seq != delivery.first_seq - 1:\n", "if False:\n"),
    ),
    mutant(
        "same-delivery-twice",
        "a delivery that is stored already is committed once more after a restart (111,927 rows twice)",
        "Apache Iceberg sink",
        "https://github.com/apache/iceberg/issues/17340",
        "tests/storage/backends/test_backend_sqlite.py::TestSqlite::test_the_same_delivery_stores_once",
        "assert await backend.call(backend.commit, delivery(1, 1)) == 2",
        Patch("storage.positions:check_follows", "return False\n", "return True\n"),
    ),
    mutant(
        "two-runs-at-once",
        "a restart starts a second task beside the first one, and both read and write",
        "Kafka Connect",
        "https://github.com/apache/kafka/pull/11869",
        "tests/runtime/test_engine.py::test_a_second_run_is_refused_while_the_first_is_running",
        "DID NOT RAISE",
        Patch(
            "runtime.engine:Engine._lock",
            "if isinstance(lock, str):\n",
            "if isinstance(lock, str):\n    return\nif False:\n",
        ),
    ),
    mutant(
        "letters-twice",
        "a load that is tried again leaves what the first try left: the same record twice",
        "dlt",
        "https://github.com/dlt-hub/dlt/issues/2837",
        "tests/storage/test_sqlite_store.py::test_letters_of_a_repeated_try_replace_those_of_the_first",
        "== [1, 1, 2]",
        Patch(
            "storage.sqlite_store:DeliveryTables._replace_letters",
            '"delete from _collectors_dead_letters where owner = ? and seq >= ?", (owner, first_seq)\n',
            '"delete from _collectors_dead_letters where owner = ? and seq > ?", (owner, 10**9)\n',
        ),
    ),
    mutant(
        "rejected-is-delivered",
        "an event that the store rejects counts as delivered and is gone",
        "Vector",
        "https://github.com/vectordotdev/vector/issues/12145",
        "tests/runtime/test_engine.py::test_rows_that_the_store_refuses_become_dead_letters",
        "store flaky",
        Patch(
            "runtime.delivery:Edge._without",
            "dead_letters=[*delivery.dead_letters, *made],\n",
            "dead_letters=delivery.dead_letters,\n",
        ),
    ),
    mutant(
        "one-bad-row-stops-all",
        "one row that violates a constraint stops the task for good; its neighbours never arrive",
        "Kafka Connect JDBC",
        "https://github.com/confluentinc/kafka-connect-jdbc/issues/920",
        "tests/runtime/test_engine.py::test_rows_that_the_store_refuses_become_dead_letters",
        "assert store.rows == [n for n in range(10)",
        Patch(
            "runtime.delivery:Edge._commit_all_it_can",
            "if not delivery.table.num_rows:\n",
            "if delivery.table.num_rows:\n",
        ),
    ),
    mutant(
        "replay-cut-differently",
        "after a restart the batches are cut differently, so what one store has is stored once more there",
        "Kafka Connect S3",
        "https://github.com/confluentinc/kafka-connect-storage-cloud/issues/93",
        "tests/runtime/test_side_by_side.py::test_a_store_that_lags_gets_the_rest_and_the_other_nothing_twice",
        '(stored("ahead"), stored("lags"))',
        Patch("runtime.flow:Flow._joining", "if first.seq <= self._behind:\n", "if False:\n"),
    ),
]
