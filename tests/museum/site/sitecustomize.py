"""On the path of the processes that a test starts while a mutant is alive: they run the same mutant."""

import os
import runpy
from pathlib import Path

museum = runpy.run_path(str(Path(__file__).parents[1] / "_catalogue.py"))
museum["patching"].apply(museum["MUTANTS"][os.environ["COLLECTORS_MUTANT"]])
