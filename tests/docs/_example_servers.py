"""The servers that examples need: each is started before its pipeline runs, and yields the variables that it has for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["SERVERS"]

READINGS = Path(__file__).parents[2] / "examples" / "data" / "readings.ndjson"


@contextlib.contextmanager
def postgres(folder, request):
    yield {"POSTGRES_DSN": request.getfixturevalue("postgres_server").dsn}


@contextlib.contextmanager
def rest_api(folder, request):
    """The program that the example asks, at its port."""
    with subprocess.Popen([sys.executable, "rest_api.py"], cwd=folder) as running:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", 18090)).close()
                    break
                except OSError:
                    assert running.poll() is None, "rest_api.py has ended"
                    assert time.monotonic() < deadline, "rest_api.py does not listen"
                    time.sleep(0.02)
            yield {}
        finally:
            running.kill()


@contextlib.contextmanager
def s3(folder, request):
    """A bucket for each folder of objects beside the examples."""
    from collectors.testing.s3_server import S3Server

    with S3Server(folder) as server:
        keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
        yield {"S3_ENDPOINT": f"http://127.0.0.1:{server.port}", **keys}


@contextlib.contextmanager
def nats_stream(folder, request):
    """A NATS server with readings in a stream."""
    import nats

    from collectors.testing.nats_server import NatsServer

    async def publish(url):
        client = await nats.connect(url)
        js = client.jetstream()
        await js.add_stream(name="SENSORS", subjects=["sensors.>"])
        for n in range(100):
            await js.publish(f"sensors.s{n % 3}", b'{"celsius": %d}' % n)
        await client.close()

    with NatsServer() as server:
        asyncio.run(publish(server.url))
        yield {"NATS_URL": server.url}


@contextlib.contextmanager
def redis_stream(folder, request):
    """A Redis server with orders in a stream, one of them broken."""
    import redis

    from collectors.testing.redis_server import RedisServer

    with RedisServer() as server, contextlib.closing(redis.Redis(port=server.port)) as client:
        for n in range(100):
            client.xadd("orders", {"payload": json.dumps({"order": n, "total": "9.90"})})
        client.xadd("orders", {"payload": "broken"})
        yield {"REDIS_URL": server.url}


@contextlib.contextmanager
def kafka_topic(folder, request):
    """A server that speaks Kafka, with the readings in a topic."""
    from confluent_kafka import Producer

    from collectors.testing.kafka_server import KafkaServer

    with KafkaServer() as server:
        producer = Producer({"bootstrap.servers": server.address, "log_level": 0})
        for line in READINGS.read_bytes().splitlines():
            producer.produce("readings", line, key=line[-9:])
        assert producer.flush(20) == 0
        yield {"KAFKA_BROKER": server.address}


@contextlib.contextmanager
def four(folder, request):
    with rest_api(folder, request), postgres(folder, request) as database, s3(folder, request) as bucket:
        yield database | bucket


SERVERS = {
    "four-at-once": four,
    "kafka": kafka_topic,
    "nats": nats_stream,
    "object-store": s3,
    "orders-to-object-store": s3,
    "orders-to-postgres": postgres,
    "redis": redis_stream,
    "rest": rest_api,
}
