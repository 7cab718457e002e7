"""Bytewax: a file of JSON lines into a file, with its recovery.

https://docs.bytewax.io/stable/guide/concepts/recovery.html: `python -m bytewax.recovery`, then `python -m bytewax.run
-r … -s … -b 0`. Input and output come from the environment, since Bytewax imports this file.
"""

import json
import os
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.files import FileSink, FileSource
from bytewax.dataflow import Dataflow

flow = Dataflow("readings")
lines = op.input("in", flow, FileSource(os.environ["PEER_INPUT"], batch_size=100))
records = op.map("parse", lines, json.loads)
output = op.map("write", records, lambda record: ("all", json.dumps(record)))
op.output("out", output, FileSink(Path(os.environ["PEER_FOLDER"]) / "out.ndjson"))
