"""Bugs of buffers on disk."""

from museum__patching import Patch, mutant

SPOOL = "tests/runtime/test_spool.py::"
INTAKE = "tests/runtime/test_intake_order.py::"

MUTANTS = [
    mutant(
        "answered-before-fsync",
        "the sender gets its answer while the bytes are only in the page cache",
        "Vector",
        "https://github.com/vectordotdev/vector/issues/22489",
        "tests/faults/test_power_cuts.py::test_power_cut[spool to sqlite-ext4]",
        "finish(lives, stack)",
        Patch("runtime.spool:Spool.append", "os.fdatasync(self._writing_descriptor())\n", "pass\n"),
    ),
    mutant(
        "answered-before-written",
        "records that were acknowledged are lost by one SIGKILL",
        "Fluent Bit",
        "https://github.com/fluent/fluent-bit/issues/10952",
        INTAKE + "test_senders_are_answered_behind_the_fsync",
        "assert on_disk > at_the_answer_before",
        Patch(
            "runtime.intake:Intake._keep",
            "while True:\n    try:\n",
            "await self._source.commit(_last_position(group))\nwhile True:\n    try:\n",
        ),
    ),
    mutant(
        "unlinked-before-stored",
        "a segment is removed as soon as it was read, before the store's position is durable",
        "Vector",
        "https://github.com/vectordotdev/vector/pull/25570",
        INTAKE + "test_what_no_store_has_yet_stays_in_the_spool",
        "assert store.rows == list(range(20))",
        Patch(
            "runtime.intake:SpoolSource.read",
            "since = chunk.position\n",
            "since = chunk.position\nself.spool.trim(since)\n",
        ),
    ),
    mutant(
        "torn-tail-is-fatal",
        "an unfinished last write, which every crash can leave, keeps the process from starting",
        "Logstash",
        "https://github.com/elastic/logstash/issues/8218",
        SPOOL + "test_an_unfinished_write_is_cut_off_without_a_word",
        "FatalError: damaged",
        Patch(
            "runtime.spool:Spool._last_number",
            "if frame is None:\n",
            "if frame is None and start < segment.end:\n    raise FatalError('damaged')\nif frame is None:\n",
        ),
    ),
    mutant(
        "damage-is-fatal",
        "one damaged record stops the buffer until somebody deletes it",
        "OpenTelemetry file_storage",
        "https://github.com/open-telemetry/opentelemetry-collector-contrib/issues/35899",
        SPOOL + "test_damaged_frames_are_counted_kept_and_told",
        "RuntimeError: damaged",
        Patch(
            "runtime._spool_reading:SegmentReader.next_in",
            "if frame.number != expected:\n",
            "if frame.number != expected:\n    raise RuntimeError('damaged')\nif False:\n",
        ),
    ),
    mutant(
        "damage-is-silent",
        "damaged parts of the spool are passed over, and nothing says how much is gone",
        "rsyslog",
        "https://github.com/rsyslog/rsyslog/issues/5771",
        SPOOL + "test_damaged_frames_are_counted_kept_and_told",
        "[bad]",
        Patch(
            "runtime._spool_reading:SegmentReader.next_in", "if frame.number != expected:\n", "if False:\n"
        ),
    ),
    mutant(
        "half-write-stays",
        "a full disk leaves half a record, and what is written behind it later cannot be read",
        "Logstash",
        "https://github.com/elastic/logstash/issues/9483",
        SPOOL + "TestModel::runTest",
        "assert numbers(everything(self.spool, self.since)) == self.kept[self.read :]",
        Patch(
            "runtime.spool:Spool._take_back",
            "os.ftruncate(self._writing_descriptor(), segment.end)\n",
            "pass\n",
        ),
    ),
    mutant(
        "fsync-again-in-the-spool",
        "a failed fsync is tried again on the same descriptor",
        "PostgreSQL",
        "https://wiki.postgresql.org/wiki/Fsync_Errors",
        SPOOL + "test_a_file_whose_fsync_failed_is_never_written_again",
        ".read_bytes() == before",
        Patch(
            "runtime.spool:Spool._abandon",
            "descriptor, self._writing = self._writing_descriptor(), None\n",
            "return\ndescriptor, self._writing = self._writing_descriptor(), None\n",
        ),
    ),
    mutant(
        "bad-configuration-eats-backlog",
        "a start with a mistake in the configuration takes the backlog off the disk, and ends without it",
        "Fluent Bit",
        "https://github.com/fluent/fluent-bit/issues/2246",
        INTAKE + "test_a_bad_configuration_leaves_the_spool_as_it_is",
        "assert store.rows == list(range(20))",
        Patch(
            "runtime.engine:Engine._connect_sources",
            "if problems:\n",
            "if problems:\n"
            "    for path in (self.config.state / 'spool').rglob('*.spool'):\n"
            "        path.unlink()\n"
            "if problems:\n",
        ),
    ),
]
