"""Bugs of reading files and decoding lines."""

from museum__patching import Patch, mutant

FILES = "tests/collection/sources/test_source_file"
NDJSON = "tests/codecs/test_codec_ndjson.py::"

MUTANTS = [
    mutant(
        "inode-is-identity",
        "a new file that got the inode of an old one is read from the old one's offset",
        "Filebeat",
        "https://github.com/elastic/beats/issues/1341",
        FILES + "_positions.py::test_a_file_with_other_content_is_new_whatever_its_inode",
        "lines(5000, 5000 + 2 * first)",
        Patch(
            "collection.sources._records:RecordReader._go_to",
            "if not same_file and imprint(self._head, last) != mark.imprint:\n",
            "if False:\n",
        ),
    ),
    mutant(
        "truncation-missed",
        "a file that was cut off and is shorter than the stored offset is silently not read",
        "Vector",
        "https://github.com/vectordotdev/vector/pull/26334",
        FILES + "_rotation.py::test_what_went_wrong_once",
        "assert not missing",
        Patch(
            "collection.sources._handle:Handle.check",
            "if not head.startswith(self._seen) or self.size() < size:\n",
            "if False:\n",
        ),
    ),
    mutant(
        "rotated-is-closed",
        "lines written between the last look and a rename are lost",
        "Filebeat",
        "https://github.com/elastic/beats/issues/39732",
        FILES + "_positions.py::test_a_log_that_was_rotated_while_nobody_looked_is_read_to_its_end_first",
        "== lines(10, 30)",
        Patch(
            "collection.sources._tracking:Tracker.jobs",
            "if not self._is_settled(job)]",
            "if not self._is_settled(job) and not job.rotated]",
        ),
    ),
    mutant(
        "half-a-line",
        "a line that is still being written is handed on in two halves",
        "Vector",
        "https://github.com/vectordotdev/vector/issues/2992",
        FILES + "_positions.py::test_a_line_that_is_finished_late_in_a_rotated_file_stays_whole",
        '[b"begun and finished',
        Patch(
            "collection.sources._records:RecordReader.read",
            "if self._stream is not None or (final and (not wait or self._quiet_at == self._cutter.end)):\n",
            "self._cutter.finish()\n"
            "if self._stream is not None or (final and (not wait or self._quiet_at == self._cutter.end)):\n",
        ),
    ),
    mutant(
        "long-line-vanishes",
        "a line that is too long is dropped; no figure says so",
        "Vector",
        "https://github.com/vectordotdev/vector/issues/26439",
        FILES + ".py::test_a_line_that_is_too_long_is_refused_with_its_beginning_and_the_rest_goes_on",
        "(refused,) = (",
        Patch(
            "collection.sources._cutting:Cutter._skip",
            "self._too_long = None\n",
            "self._too_long = None\nself.offset += record.size\nreturn self.take()\n",
        ),
    ),
    mutant(
        "bomb",
        "a few kilobytes of compressed data are decompressed as a whole into memory",
        "OpenTelemetry Collector",
        "https://github.com/golang/vulndb/issues/2900",
        FILES + "_formats.py::test_a_bomb_is_read_in_bounded_memory",
        "assert peak < 64 * 2**20",
        Patch(
            "collection.sources._compressed:_Gzip._inflate",
            "data = self._member.decompress(self._input, size)\n",
            "data = self._member.decompress(self._input)\n",
        ),
    ),
    mutant(
        "integers-become-floats",
        "a large integer loses its last digits on the way",
        "Telegraf",
        "https://github.com/influxdata/telegraf/issues/7555",
        NDJSON + "TestTypes::test_a_large_integer_beside_floats_is_not_rounded",
        "9007199254740992.0 != 9007199254740994.0",
        Patch(
            "codecs._json_read:is_suspicious",
            "return large and _LONG_NUMBER.search(text) is not None\n",
            "return False\n",
        ),
    ),
    mutant(
        "one-bad-line-costs-the-batch",
        "one malformed line takes the good lines of its batch with it",
        "Jitsu",
        "https://github.com/jitsucom/jitsu/pull/772",
        NDJSON + "test_a_line_that_is_no_record_costs_that_line_alone",
        "decoded.table.num_rows + len(decoded.rejected)",
        Patch(
            "codecs._json_records:JsonLines.decode_slow",
            "return SlowPath(split_lines(data), known, self._as_text()).decode()\n",
            "decoded = SlowPath(split_lines(data), known, self._as_text()).decode()\n"
            "return Decoded(decoded.table.slice(0, 0), decoded.read, decoded.rejected) if decoded.rejected else decoded\n",
        ),
    ),
]
