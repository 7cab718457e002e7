"""The functions that the pipeline beside this file names."""

from collections.abc import Iterator


def numbers() -> Iterator[dict[str, int]]:
    """Yield records; each is a dict."""
    for n in range(1000):
        yield {"n": n}


def with_square(record: dict[str, int]) -> dict[str, int] | None:
    """Return the record, changed or not; None to leave it out."""
    if record["n"] % 3 == 0:
        return None
    return {**record, "square": record["n"] ** 2}
