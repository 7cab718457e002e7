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


async def publish_readings(port, payloads):
    """Publish to a broker where they wait, in a session, for the pipeline."""
    from mqttium.api import AsyncClient

    async with AsyncClient("collectors-example", clean_start=False) as session:
        await session.connect("127.0.0.1", port)
        await session.subscribe("sensors/+/+/temperature", qos=1)
    async with AsyncClient() as client:
        await client.connect("127.0.0.1", port)
        for site, payload in zip(["north", "south", "south"], payloads, strict=True):
            await (await client.publish(f"sensors/{site}/t1/temperature", payload, qos=1)).wait()


@contextlib.contextmanager
def mqtt_broker(folder, request):
    """A broker at the port of the example, with a reading that is none among those of two sites."""
    from collectors.testing.mqtt_server import MqttServer

    with MqttServer(port=11883) as broker:
        asyncio.run(publish_readings(broker.port, [b'{"celsius": 21.5}', b"19", b"broken"]))
        yield {}


@contextlib.contextmanager
def postgres(folder, request):
    yield {"POSTGRES_DSN": request.getfixturevalue("postgres_server").dsn}


@contextlib.contextmanager
def orders_api(folder, request):
    """The program that the example sends to, at a port of its own."""
    from collectors.testing.local_server import free_port

    with program(folder, "orders_api.py", port := free_port()):
        yield {"ORDERS_API": f"127.0.0.1:{port}"}


@contextlib.contextmanager
def program(folder, name, port):
    """A program beside the examples, at a port."""
    with subprocess.Popen([sys.executable, name, str(port)], cwd=folder) as running:
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert running.poll() is None, f"{name} has ended"
                    assert time.monotonic() < deadline, f"{name} does not listen"
                    time.sleep(0.02)
            yield {}
        finally:
            running.kill()


def rest_api(folder, request, port=18090):
    """The API that the example asks, at its port."""
    return program(folder, "rest_api.py", port)


@contextlib.contextmanager
def ticker(folder, request):
    """What the examples of event streams and WebSockets ask."""
    from collectors.testing.local_server import free_port

    scheme = {"sse": "http", "websocket": "ws"}[request.node.callspec.params["name"]]
    with program(folder, "ticker.py", port := free_port()):
        yield {"TICKER": f"{scheme}://127.0.0.1:{port}"}


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
def nats_for_orders(folder, request):
    """A NATS server with a stream that takes orders."""
    import nats

    from collectors.testing.nats_server import NatsServer

    async def make(url):
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
        await client.close()

    with NatsServer() as server:
        asyncio.run(make(server.url))
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
def kafka_for_orders(folder, request):
    """The server of the session, with a topic that takes orders."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient, NewTopic

    server = request.getfixturevalue("kafka_server")
    admin = AdminClient({"bootstrap.servers": server.address, "log_level": 0})
    (made,) = admin.create_topics([NewTopic("orders", 2, 1)]).values()
    with contextlib.suppress(KafkaException):  # another test has made it
        made.result(20)
    yield {"KAFKA_BROKER": server.address}


@contextlib.contextmanager
def four(folder, request):
    """At ports of their own, since the examples with fixed ones may run at the same time."""
    from collectors.testing.local_server import free_port
    from collectors.testing.mqtt_server import MqttServer

    with (
        MqttServer() as broker,
        rest_api(folder, request, api := free_port()),
        postgres(folder, request) as database,
        s3(folder, request) as bucket,
    ):
        asyncio.run(
            publish_readings(broker.port, [b'{"celsius": 21.5}', b'{"celsius": 999}', b'{"celsius": -3}'])
        )
        here = {"MQTT_BROKER": f"127.0.0.1:{broker.port}", "WEATHER_API": f"127.0.0.1:{api}"}
        yield database | bucket | here


SERVERS = {
    "four-at-once": four,
    "kafka": kafka_topic,
    "mqtt": mqtt_broker,
    "nats": nats_stream,
    "object-store": s3,
    "orders-to-api": orders_api,
    "orders-to-kafka": kafka_for_orders,
    "orders-to-nats": nats_for_orders,
    "orders-to-object-store": s3,
    "orders-to-postgres": postgres,
    "redis": redis_stream,
    "rest": rest_api,
    "sse": ticker,
    "websocket": ticker,
}
