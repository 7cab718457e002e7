"""The function of the job that runs Python over every record."""


def clean(record: dict) -> dict | None:
    if record["status"] == "fail" or not -50 <= record["temperature"] <= 60:
        return None
    record["temperature_f"] = record["temperature"] * 9 / 5 + 32
    record["room"] = record["device"].split("-")[1]
    return record
