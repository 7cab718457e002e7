"""Bugs of files that should have been durable, and of outcomes that were unknown."""

from museum__patching import Patch, mutant

PARQUET = "tests/storage/backends/test_backend_parquet.py::"
DUCKDB = "tests/storage/backends/test_backend_duckdb_log.py::"

MUTANTS = [
    mutant(
        "sync-off",
        "the database is told not to wait for the disk: a power cut takes what was acknowledged",
        "OpenTelemetry file_storage",
        "https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/20266",
        "tests/faults/test_power_cuts.py::test_power_cut[sqlite-ext4]",
        "stack.stored_seq(backend) >= seq",
        Patch("storage.sqlite_store:Database.settle", "synchronous = full", "synchronous = normal"),
    ),
    mutant(
        "no-folder-fsync",
        "a new folder's own name is never made durable: after a power cut the acknowledged file in it is gone",
        "Vector",
        "https://github.com/vectordotdev/vector/pull/25766",
        "tests/faults/test_power_cuts.py::test_power_cut[parquet-posix]",
        "said that it keeps chunk",
        Patch("storage.files:make_folders", "sync_folder(path.parent)\n", "pass\n"),
    ),
    mutant(
        "parquet-without-fsync",
        "files are acknowledged without fsync: a power cut loses their rows or the whole table",
        "ClickHouse DeltaLake",
        "https://github.com/ClickHouse/ClickHouse/issues/111738",
        "tests/faults/test_power_cuts.py::test_power_cut[parquet-ext4]",
        "finish(lives, stack)",
        Patch("storage.backends._parquet_file:Sink.drain", "if sync:\n", "if False:\n"),
    ),
    mutant(
        "fsync-again",
        "a failed fsync is tried again on the same file: the second one succeeds, and nothing was written",
        "PostgreSQL",
        "https://wiki.postgresql.org/wiki/Fsync_Errors",
        "tests/storage/test_files.py::test_a_failed_fsync_is_fatal",
        "DID NOT RAISE",
        Patch("storage.files:make_durable", "raise FatalError(\n", "return\nraise FatalError(\n"),
    ),
    mutant(
        "acknowledged-in-memory",
        "what the store holds in memory counts as committed: lost when the commit of the table fails later",
        "Apache Iceberg sink",
        "https://github.com/apache/iceberg/issues/13752",
        PARQUET + "test_rows_wait_in_scratch_files_until_a_file_is_full",
        "assert seqs ==",
        Patch(
            "storage.backends.parquet:ParquetBackend.commit",
            "return flow.published.seq\n",
            "return delivery.key.seq\n",
        ),
    ),
    mutant(
        "zombie-overwrites",
        "a task that hung wakes up and overwrites what its successor has stored",
        "Kafka Connect S3",
        "https://github.com/confluentinc/kafka-connect-storage-cloud/issues/800",
        PARQUET + "test_an_owner_that_wakes_up_just_before_its_entry_stores_nothing",
        "DID NOT RAISE",
        Patch("storage.files:put_new", "os.link(scratch, path)\n", "os.replace(scratch, path)\n"),
    ),
    mutant(
        "failed-try-stays",
        "the files of a failed attempt stay beside those of the next: every reader of the folder sees both",
        "Airbyte S3",
        "https://github.com/airbytehq/airbyte/issues/13692",
        PARQUET + "TestParquet::test_dying_at_any_moment_loses_and_doubles_nothing",
        "sorted(found[",
        Patch(
            "storage.backends._parquet_log:FlowLog.intend",
            "path = self._intent(epoch)\n",
            "return\npath = self._intent(epoch)\n",
        ),
    ),
    mutant(
        "unknown-is-failed",
        "a commit whose answer was lost is taken for failed, and the files of the live table are deleted",
        "Apache Iceberg",
        "https://github.com/apache/iceberg/pull/3717",
        PARQUET + "test_a_flush_whose_outcome_is_unknown_can_be_repeated",
        "another process has taken this flow over",
        Patch(
            "storage.backends._parquet_flow:FlowFiles._publish",
            "if not self._log.put(entry) and not self._log.is_there(entry):\n",
            "if not self._log.put(entry):\n",
        ),
    ),
    mutant(
        "success-although-failed",
        "a run whose source died ends as a success",
        "Airbyte",
        "https://github.com/airbytehq/airbyte/issues/84961",
        "tests/e2e/test_bad_input.py::test_full_disk",
        "assert done.returncode == 1",
        Patch("cli._progress:exit_code", "return 0 if not errors and report.balanced else 1\n", "return 0\n"),
    ),
    mutant(
        "durable-by-the-log",
        "what is only in DuckDB's write-ahead log counts as durable: gone when the log has to be removed to start",
        "HitKeep",
        "https://github.com/PascaleBeier/hitkeep/issues/259",
        DUCKDB + "test_what_was_told_as_durable_does_not_need_the_log",
        "assert stored >= told",
        Patch(
            "storage.backends.duckdb:DuckdbBackend.commit",
            "return self._durable.get(delivery.key.flow, 0)\n",
            "return delivery.key.seq\n",
        ),
    ),
    mutant(
        "log-keeps-from-starting",
        "a write-ahead log that cannot be replayed ends every start, until somebody deletes it",
        "Distillery",
        "https://github.com/norrietaylor/distillery/issues/647",
        DUCKDB + "test_what_was_told_as_durable_does_not_need_the_log",
        "cannot be replayed",
        Patch(
            "storage.backends._duckdb_file:Database._open_whatever_the_log",
            "if not self.log_size() or _is_passing(error):\n",
            "if True:\n",
        ),
    ),
]
