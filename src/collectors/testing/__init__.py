"""The conformance kit: third parties test their components with the contracts that ours pass."""
