"""rsyslog, the usual log shipper, native code: a line into fields by mmnormalize, to lines of JSON. Argument: input.

rsyslogd follows the file and would go on for ever: it is ended when as many lines are there as were read.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LAST = 2000
RULES = (
    "version=2\n"
    'rule=:%clientip:word% %ident:word% %auth:word% [%timestamp:char-to:]%] "%verb:word% %request:word% '
    'HTTP/%httpversion:char-to:"%" %response:number% %bytes:number% "%referrer:char-to:"%" "%agent:char-to:"%"\n'
)
CONFIGURATION = """
global(workDirectory="{here}/out" maxMessageSize="64k")
main_queue(queue.type="LinkedList" queue.size="100000" queue.dequeueBatchSize="1024")
module(load="imfile" mode="inotify")
module(load="mmnormalize")
template(name="all" type="list") {{ property(name="$!all-json-plain") constant(value="\\n") }}
input(type="imfile" file="{here}/out/in.log" tag="s:" ruleset="r" addMetadata="off" persistStateInterval="0" maxLinesAtOnce="0")
ruleset(name="r") {{
  action(type="mmnormalize" ruleBase="{here}/out/rules")
  if $parsesuccess == "OK" then action(type="omfile" file="{here}/out/out.ndjson" template="all" ioBufferSize="256k" flushOnTXEnd="off")
}}
"""


def lines(path: Path, at: int) -> tuple[int, int]:
    """Return how many lines there are behind a place, and the place behind them."""
    count = 0
    with path.open("rb") as file:
        file.seek(at)
        while block := file.read(1 << 20):
            count += block.count(b"\n")
        return count, file.tell()


source, here, found = Path(sys.argv[1]), Path.cwd(), Path("out/out.ndjson")
expected, _ = lines(source, 0)
Path("out/rules").write_text(RULES)
Path("out/rsyslog.conf").write_text(CONFIGURATION.format(here=here))
os.link(source, "out/in.log")
daemon = [shutil.which("rsyslogd", path="/usr/sbin:" + os.environ["PATH"]), "-n", "-i", f"{here}/out/pid"]
process = subprocess.Popen([*daemon, "-f", f"{here}/out/rsyslog.conf"])
stored, at = 0, 0
while stored < expected and process.poll() is None:
    time.sleep(0.05)
    if found.exists():
        more, at = lines(found, at)
        stored += more
    if stored > expected - LAST:
        process.send_signal(signal.SIGHUP)  # it closes its files: what is in a buffer would stay there
process.terminate()
process.wait()
sys.exit(stored != expected)
