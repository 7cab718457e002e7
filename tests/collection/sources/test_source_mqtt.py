"""MQTT against real brokers: what is acknowledged when, what the session keeps, and what each refusal says."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from _mqtt_rig import V5, Driver, Scripted, broker, publish, publisher, quiet, run
from mqttium.api import Properties

from collectors.collection.base import Answers, Remembers
from collectors.collection.sources.mqtt import MqttSource
from collectors.config.load import from_mapping
from collectors.errors import ConfigurationError, FatalError, TransientError
from collectors.testing.source_contract import SourceContract

NO_POSITION = "what was acknowledged is in the spool, not in the source; the broker's session has the rest"
VERSIONS = ["3.1.1", "5"]


@pytest.fixture(scope="module")
def iotcore():
    with broker("iotcore") as server:
        yield server


@pytest.fixture(scope="module")
def mosquitto():
    with broker("mosquitto") as server:
        yield server


class Contract(SourceContract):
    component = "mqtt"
    endless = True
    count = 12
    waive = {"resume_from_every_position": NO_POSITION}
    server = "iotcore"
    version = "3.1.1"
    qos = 1

    @asynccontextmanager
    async def rig(self, ids):
        with broker(self.server) as server:
            self.folder = Path(tempfile.mkdtemp())
            settings = {
                "url": f"mqtt://127.0.0.1:{server.port}",
                "topics": ["rig/+"],
                "version": self.version,
                "qos": self.qos,
                "chunk_size": 1,
            }
            async with Driver(self.folder, **settings):
                pass
            await publish(server.port, [("rig/1", b'{"id": %d}' % each) for each in ids], qos=self.qos)
            yield settings
            shutil.rmtree(self.folder)

    def make(self, settings):
        source = super().make(settings)
        source.remember(self.folder, [])
        return source


class TestMqtt(Contract):
    component = "mqtt"


class TestMqtt5(Contract):
    server = "mosquitto"
    version = "5"
    qos = 2


def test_it_remembers_and_does_not_turn_away():
    source = MqttSource(url="mqtt://localhost", topics=["a"])
    assert isinstance(source, Remembers)
    assert not isinstance(source, Answers)
    assert source.needs_spool()


@pytest.fixture
def settings(mosquitto, request):
    """Settings for a broker that all tests of the file share, with topics and a client of the test's own."""
    name = request.node.name.replace("/", "-").replace("[", "-").replace("]", "").replace("#", "")
    return {
        "url": f"mqtt://127.0.0.1:{mosquitto.port}",
        "topics": [f"{name}/{{site}}/#"],
        "client_id": name,
    }


def name_of(settings):
    return settings["topics"][0].partition("/")[0]


def known(folder):
    """Return the exchanges of QoS 2 that are not over."""
    return json.loads((folder / "session.json").read_text())["known"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
@run
async def test_messages_become_lines_with_topic_and_names(tmp_path, settings, mosquitto, qos, version):
    name = name_of(settings)
    async with Driver(tmp_path, **settings, version=version, qos=qos) as driver:
        await publish(mosquitto.port, [(f"{name}/north/t", b'{"v": %d}' % n) for n in range(30)], qos=qos)
        lines = await driver.until_lines(30)
    assert [json.loads(line) for line in lines] == [
        {"topic": f"{name}/north/t", "site": "north", "v": n} for n in range(30)
    ]
    assert driver.source.framing.cut(b"".join(chunk.raw_data for chunk in driver.chunks), final=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [1, 2])
@run
async def test_what_was_not_committed_comes_again_and_what_was_does_not(
    tmp_path, settings, mosquitto, qos, version
):
    settings |= {"version": version, "qos": qos, "chunk_size": 1}
    name = name_of(settings)
    async with Driver(tmp_path, **settings) as driver:
        driver.commits = False
        await publish(mosquitto.port, [(f"{name}/a/b", b"%d" % n) for n in range(10)], qos=qos)
        await driver.until_lines(10)
        await driver.source.commit(driver.chunks[3].position)
        await quiet(mosquitto.port, f"quiet/{name}")
    async with Driver(tmp_path, **settings) as driver:
        lines = await driver.until_lines(6)
        await quiet(mosquitto.port, f"quiet/{name}")
    assert [json.loads(line)["value"] for line in lines] == list(range(4, 10))
    async with Driver(tmp_path, **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/a/b", b"10")], qos=qos)
        lines = await driver.until_lines(1)
    assert [json.loads(line)["value"] for line in lines] == [10]


@run
async def test_a_message_of_qos_2_that_is_in_the_spool_is_not_handed_on_again(tmp_path, settings, mosquitto):
    """The process dies between the fsync of the spool and the commit: only the spool's chunks know."""
    settings |= {"version": "5", "qos": 2}
    name = name_of(settings)
    async with Driver(tmp_path, **settings) as driver:
        driver.commits = False
        await publish(mosquitto.port, [(f"{name}/a/b", b"%d" % n) for n in range(5)], qos=2)
        await driver.until_lines(5)
        kept = list(driver.chunks)
    async with Driver(tmp_path, kept, **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/a/b", b"5")], qos=2)
        assert [json.loads(line)["value"] for line in await driver.until_lines(1)] == [5]
        await driver.until(lambda: known(tmp_path) == [])


@run
async def test_another_message_under_an_open_identifier_is_a_new_one(tmp_path, settings, mosquitto):
    """A broker that was restored from an old copy gives identifiers again."""
    settings |= {"version": "5", "qos": 2}
    name = name_of(settings)
    async with Driver(tmp_path, **settings) as driver:
        driver.commits = False
        await publish(mosquitto.port, [(f"{name}/a/b", b"1")], qos=2)
        await driver.until_lines(1)
        (chunk,) = driver.chunks
    chunk.metadata["exchanges"] = [(number, mid, 1) for number, mid, _ in chunk.metadata["exchanges"]]
    async with Driver(tmp_path, [chunk], **settings) as driver:
        assert [json.loads(line)["value"] for line in await driver.until_lines(1)] == [1]


@run
async def test_the_broker_sends_no_more_than_may_be_on_its_way(tmp_path, settings, mosquitto):
    settings |= {"version": "5", "receive_maximum": 7}
    name = name_of(settings)
    async with Driver(tmp_path, **settings) as driver:
        driver.commits = False
        await publish(mosquitto.port, [(f"{name}/a/b", b"%d" % n) for n in range(40)])
        await driver.until_lines(7)
        await quiet(mosquitto.port, f"quiet/{name}")
        assert len(driver.lines) == 7
        driver.commits = True
        await driver.source.commit(driver.chunks[-1].position)
        assert len(await driver.until_lines(40)) == 40


@pytest.mark.parametrize("version", VERSIONS)
@run
async def test_retained_messages_come_once(tmp_path, settings, mosquitto, version):
    name = name_of(settings)
    settings |= {"version": version, "add": {"kept": "retain", "q": "qos", "at": "time"}}
    await publish(mosquitto.port, [(f"{name}/a/b", b"1")], retain=True)
    async with Driver(tmp_path, **settings) as driver:
        (line,) = await driver.until_lines(1)
        assert {**json.loads(line), "at": ""} == {"kept": True, "q": 1, "at": "", "site": "a", "value": 1}
        assert json.loads(line)["at"].endswith("Z")
        await quiet(mosquitto.port, f"quiet/{name}")
    async with Driver(tmp_path, **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/a/b", b"2")])
        assert [json.loads(line)["value"] for line in await driver.until_lines(1)] == [2]


@pytest.mark.parametrize("version", VERSIONS)
@run
async def test_topics_that_changed_are_subscribed_and_unsubscribed(tmp_path, settings, mosquitto, version):
    name = name_of(settings)
    settings |= {"version": version, "topics": [f"{name}/a", f"{name}/b"]}
    async with Driver(tmp_path, **settings):
        pass
    settings["topics"] = [f"{name}/b", {"topic": f"{name}/c", "qos": 2}]
    async with Driver(tmp_path, **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/{each}", b"1") for each in "abc"])
        topics = [json.loads(line)["topic"] for line in await driver.until_lines(2)]
    assert topics == [f"{name}/b", f"{name}/c"]
    assert json.loads((tmp_path / "session.json").read_text())["topics"].keys() == {f"{name}/b", f"{name}/c"}


@run
async def test_a_session_that_the_broker_lost_is_begun_anew(tmp_path, settings, mosquitto):
    settings |= {"version": "5", "qos": 2}
    name = name_of(settings)
    async with Driver(tmp_path, **settings) as driver:
        driver.commits = False
        await publish(mosquitto.port, [(f"{name}/a/b", b"1")], qos=2)
        await driver.until_lines(1)
        async with publisher(mosquitto.port, settings["client_id"], **V5):  # clean start: the session is gone
            await driver.until(lambda: driver.error)
        await driver.source.commit(driver.chunks[0].position)
    assert isinstance(driver.error, TransientError)
    async with Driver(tmp_path, **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/a/b", b"2")], qos=2)
        assert [json.loads(line)["value"] for line in await driver.until_lines(1)] == [2]


@pytest.mark.parametrize("version", VERSIONS)
@run
async def test_another_program_with_the_client_id_is_given_as_a_possible_reason(
    tmp_path, settings, mosquitto, version
):
    """Mosquitto 2.0.11 does not say that it is the reason, with MQTT 5 either."""
    async with (
        Driver(tmp_path, **settings, version=version) as driver,
        publisher(mosquitto.port, settings["client_id"]),
    ):
        await driver.until(lambda: driver.error)
    assert isinstance(driver.error, TransientError)
    assert f"another program has the client id '{settings['client_id']}'" in str(driver.error)


@run
async def test_a_look_from_outside_of_a_run_disturbs_no_session(tmp_path, settings, mosquitto):
    name = name_of(settings)
    async with Driver(tmp_path, **settings) as driver:
        async with Driver(None, **settings) as look:
            await publish(mosquitto.port, [(f"{name}/a/b", b"1")])
            await look.until_lines(1)
        await driver.until_lines(1)
        assert driver.error is None


@run
async def test_shared_subscriptions(tmp_path, settings, mosquitto):
    name = name_of(settings)
    settings |= {"version": "5", "topics": [f"$share/group/{name}/{{site}}"]}
    async with (
        Driver(tmp_path / "1", **{**settings, "client_id": f"{name}1"}) as first,
        Driver(tmp_path / "2", **{**settings, "client_id": f"{name}2"}) as second,
    ):
        await publish(mosquitto.port, [(f"{name}/x", b"%d" % n) for n in range(20)])
        await first.until(lambda: len(first.lines) + len(second.lines) == 20)
    rows = [json.loads(line) for line in first.lines + second.lines]
    assert sorted(row["value"] for row in rows) == list(range(20))
    assert {row["site"] for row in rows} == {"x"}


@run
async def test_properties_of_messages_are_stepped_over(tmp_path, settings, mosquitto):
    name = name_of(settings)
    properties = Properties({"user_property": [("k", "v" * 300)], "content_type": "application/json"})
    async with Driver(tmp_path, **settings, version="5") as driver:
        async with publisher(mosquitto.port, **V5) as client:
            await (await client.publish(f"{name}/a", b'{"v": 1}', qos=1, properties=properties)).wait()
        assert json.loads((await driver.until_lines(1))[0])["v"] == 1


@run
async def test_payloads_that_are_no_records_are_set_aside_with_their_topic(tmp_path, settings, mosquitto):
    name = name_of(settings)
    async with Driver(tmp_path, **settings, max_record=1000, qos=2) as driver:
        payloads = [b"21.5", b"nothing", b'{"a": 1}', b"x" * 300_000, b'{"a": 2}']
        await publish(mosquitto.port, [(f"{name}/a", each) for each in payloads], qos=2)
        await driver.until(lambda: sum(chunk.metadata.get("messages", 1) for chunk in driver.chunks) == 5)
        await driver.until(lambda: known(tmp_path) == [])
    refused = [chunk for chunk in driver.chunks if chunk.data_format == "rejected"]
    assert [chunk.metadata["path"] for chunk in refused] == [f"{name}/a"] * 2
    assert refused[0].raw_data == b"nothing"
    assert refused[0].metadata["reason"].startswith("the payload is not JSON: ")
    assert refused[1].metadata["reason"] == "the message has 300,000 bytes, more than max_record (1,000)"
    assert len(refused[1].raw_data) < 300_000
    rows = [json.loads(chunk.raw_data) for chunk in driver.chunks if chunk.data_format == "ndjson"]
    assert [row.get("value", row.get("a")) for row in rows] == [21.5, 1, 2]


@run
async def test_other_formats_get_the_payload_as_it_is(tmp_path, settings, mosquitto):
    name = name_of(settings)
    settings |= {"format": "csv", "topics": [f"{name}/+"]}
    async with Driver(tmp_path, **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/{n}", b"a,b\n%d,2\n" % n) for n in range(3)])
        await driver.until(lambda: len(driver.chunks) == 3)
    assert [(chunk.data_format, chunk.raw_data) for chunk in driver.chunks] == [
        ("csv", b"a,b\n%d,2\n" % n) for n in range(3)
    ]
    assert [chunk.metadata["path"] for chunk in driver.chunks] == [f"{name}/{n}" for n in range(3)]


async def first_of(source):
    await source.connect()
    return await anext(source.stream(None))


# Users and TLS


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A broker that wants a user and a password."""
    users = tmp_path_factory.mktemp("users") / "users"
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("needs the program mosquitto_passwd: apt-get install mosquitto")
    subprocess.run(["mosquitto_passwd", "-b", "-c", users, "me", "right"], check=True)
    with broker("mosquitto", ("allow_anonymous false", f"password_file {users}")) as server:
        yield server


@pytest.mark.parametrize("version", VERSIONS)
@run
async def test_user_and_password(tmp_path, guarded, version):
    settings = {"url": f"mqtt://127.0.0.1:{guarded.port}", "topics": ["a"], "version": version}
    with pytest.raises(FatalError, match=r"look at `username` and `password`") as wrong:
        async with Driver(tmp_path, **settings, username="me", password="wr0ng-secret"):
            pass
    assert "wr0ng-secret" not in str(wrong.value)
    with pytest.raises(FatalError, match="look at `username`"):
        async with Driver(tmp_path, **settings):
            pass
    async with Driver(tmp_path, **settings, username="me", password="right") as driver:
        assert driver.error is None
        assert "right" not in repr(driver.source.config)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, a certificate of localhost, and one of a client."""
    folder = tmp_path_factory.mktemp("certificates")
    if shutil.which("openssl") is None:
        pytest.skip("needs the program openssl to make certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    for name in ("ca", "other"):
        openssl(
            *new,
            "-x509",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
        )
    for name in ("localhost", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text(f"subjectAltName=DNS:{name}\n")
        signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
    return folder


@pytest.fixture(scope="module")
def encrypted(certificates):
    listener = [f"cafile {certificates}/ca.pem", f"certfile {certificates}/localhost.pem"]
    listener += [f"keyfile {certificates}/localhost.key", "require_certificate true"]
    with broker("mosquitto", listener=listener) as server:
        yield server


@run
async def test_tls(tmp_path, encrypted, certificates):
    at = {"url": f"mqtts://localhost:{encrypted.port}", "topics": ["a"]}
    own = {"cert": str(certificates / "client.pem"), "key": str(certificates / "client.key")}
    ca = {"ca": str(certificates / "ca.pem")}
    async with Driver(tmp_path, **at, tls=ca | own) as driver:
        assert driver.error is None
    for tls in ({"ca": str(certificates / "other.pem")}, None):
        with pytest.raises(FatalError, match=r"is not to be trusted: .*`tls: \{ca: …\}`"):
            async with Driver(tmp_path, **at, tls=tls):
                pass
    with pytest.raises(FatalError, match="is not to be trusted: .*IP address mismatch"):
        async with Driver(tmp_path, **{**at, "url": f"mqtts://127.0.0.1:{encrypted.port}"}, tls=ca):
            pass
    with pytest.raises((FatalError, TransientError), match="certificate"):
        async with Driver(tmp_path, **at, tls=ca):
            pass
    with pytest.raises(TransientError, match="closed the connection|broke"):
        async with Driver(tmp_path, **{**at, "url": f"mqtt://localhost:{encrypted.port}"}):
            pass


@run
async def test_tls_to_a_port_without_it(tmp_path, mosquitto):
    with pytest.raises((FatalError, TransientError), match="TLS"):
        async with Driver(tmp_path, url=f"mqtts://localhost:{mosquitto.port}", topics=["a"]):
            pass


def test_files_that_cannot_be_used(tmp_path):
    (tmp_path / "x.pem").write_text("no certificate")
    source = MqttSource(url="mqtts://localhost:1", topics=["a"], tls={"ca": str(tmp_path / "none.pem")})
    with pytest.raises(ConfigurationError, match=r"none\.pem: No such file"):
        asyncio.run(first_of(source))
    pair = {"cert": str(tmp_path / "x.pem"), "key": str(tmp_path / "x.pem")}
    with pytest.raises(ConfigurationError, match="cannot use the certificate"):
        asyncio.run(first_of(MqttSource(url="mqtts://localhost:1", topics=["a"], tls=pair)))


# What brokers can answer

OK3, OK5 = b"\x20\x02\x00\x00", b"\x20\x03\x00\x00\x00"
REASON = b"\x0b\x1f\x00\x08go away!"


@pytest.mark.parametrize(
    ("version", "answers", "kind", "text"),
    [
        ("3.1.1", [b"\x20\x02\x00\x01"], FatalError, "does not speak this version.*`version: 5`"),
        ("3.1.1", [b"\x20\x02\x00\x02"], FatalError, "does not accept the client id"),
        ("3.1.1", [b"\x20\x02\x00\x03"], TransientError, "is not available"),
        ("3.1.1", [b"\x20\x02\x00\x05"], FatalError, "may not connect.*look at `username`"),
        ("3.1.1", [b"\x20\x01\x00"], TransientError, "cut short"),
        ("3.1.1", [None], TransientError, "without an answer to CONNECT; does it speak MQTT 3.1.1 there"),
        ("3.1.1", [b"HTTP/1.1 400 Bad Request\r\n\r\n"], TransientError, "does not answer to CONNECT|sent a"),
        ("3.1.1", [b"\x20\xff\xff\xff\xff\x01"], TransientError, "a length of more than four bytes"),
        ("3.1.1", [b""], TransientError, "does not answer to CONNECT within 0.3 s"),
        ("3.1.1", [OK3, b""], TransientError, "does not answer to SUBSCRIBE"),
        ("3.1.1", [OK3, b"\x90\x03\x00\x01\x80"], FatalError, "refuses the subscription to 'a/b' .code 128."),
        ("5", [b"\x20\x03\x00\x84\x00"], FatalError, "`version: 3.1.1`"),
        (
            "5",
            [b"\x20\x0e\x00\x87" + REASON],
            FatalError,
            "refuses the connection: go away!; look at .*code 135.",
        ),
        ("5", [b"\x20\x03\x00\x9f\x00"], TransientError, "too many connections"),
        ("5", [b"\x20\x03\x00\x9d\x00"], FatalError, "another server"),
        ("5", [b"\x20\x05\x00\x00\x02\x77\x00"], TransientError, "properties that are none"),
        ("5", [OK5, b"\x90\x04\x00\x01\x00\x9e"], FatalError, "refuses the subscription"),
        ("5", [OK5, b"\xe0\x02\x8e\x00"], FatalError, "same client id 'me'; give each its own `client_id`"),
        ("5", [OK5, b"\xe0\x02\x8b\x00"], TransientError, "ended the connection: it is shutting down"),
    ],
)
@run
async def test_refusals(tmp_path, version, answers, kind, text):
    async with Scripted(*answers) as server:
        at = {"url": f"mqtt://127.0.0.1:{server.port}", "topics": ["a/b"], "version": version}
        at["client_id"] = "me"
        with pytest.raises(kind, match=text):
            async with Driver(tmp_path, **at, timeout=0.3):
                pass


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (b"\x32\x05\x00\x01a\x00\x00", "cut short"),
        (b"\x36\x06\x00\x01a\x00\x01x", "cut short"),
        (b"\x30\x02\x00\x09", "cut short"),
        (b"\x82\x00", "a packet of kind 8"),
    ],
)
@run
async def test_what_is_not_mqtt_ends_the_connection_and_costs_nothing_before_it(tmp_path, sent, text):
    good = b"\x30\x04\x00\x01a1"
    async with (
        Scripted(OK3, b"\x90\x03\x00\x01\x01" + good + sent) as server,
        Driver(tmp_path, url=f"mqtt://127.0.0.1:{server.port}", topics=["a"]) as driver,
    ):
        await driver.until(lambda: driver.error)
    assert isinstance(driver.error, TransientError)
    assert text in str(driver.error)
    assert driver.lines == [b'{"topic":"a","value":1}']


@run
async def test_what_has_arrived_is_given_when_it_stops(tmp_path):
    """With QoS 0 it does not come again."""
    message = b"\x30\x04\x00\x01a1"
    async with Scripted(OK3, b"\x90\x03\x00\x01\x00" + 100_000 * message) as server:
        source = MqttSource(url=f"mqtt://127.0.0.1:{server.port}", topics=["a"], qos=0)
        source.remember(tmp_path, [])
        await source.connect()
        stream = source.stream(None)
        chunks = [await anext(stream)]
        await stream.aclose()
        chunks += [chunk async for chunk in source.rest()]
        await source.disconnect()
    assert sum(chunk.raw_data.count(b"\n") for chunk in chunks) == 100_000


@run
async def test_a_broker_that_grants_less_is_told(tmp_path):
    async with (
        Scripted(OK3, b"\x90\x03\x00\x01\x00") as server,
        Driver(tmp_path, url=f"mqtt://127.0.0.1:{server.port}", topics=["a"], qos=2) as driver,
    ):
        assert any("grants less than was asked for: 'a' (QoS 0)" in line for line in driver.told)


@run
async def test_a_broker_that_keeps_no_session_is_told(tmp_path):
    async with Scripted(b"\x20\x08\x00\x00\x05\x11\x00\x00\x00\x00", b"\x90\x04\x00\x01\x00\x01") as server:
        at = {"url": f"mqtt://127.0.0.1:{server.port}", "topics": ["a"], "version": 5}
        async with Driver(tmp_path, **at) as driver:
            assert any("keeps no session" in line for line in driver.told)


@run
async def test_a_broker_that_falls_silent_is_given_up_and_pinged_before(tmp_path):
    async with Scripted(OK3, b"\x90\x03\x00\x01\x01", b"\xd0\x00") as server:
        at = {"url": f"mqtt://127.0.0.1:{server.port}", "topics": ["a"], "keep_alive": 1}
        async with Driver(tmp_path, **at) as driver:
            await driver.until(lambda: driver.error)
        assert server.got.count(b"\xc0") >= 2
    assert isinstance(driver.error, TransientError)
    assert "for 1.5 s, not even an answer to a ping" in str(driver.error)


@run
async def test_nobody_there():
    source = MqttSource(url="mqtt://127.0.0.1:1", topics=["a"])
    with pytest.raises(TransientError, match=r"cannot connect to 127\.0\.0\.1:1: "):
        await first_of(source)


# What is remembered


@run
async def test_the_client_id_is_made_up_once(tmp_path, mosquitto):
    at = {"url": f"mqtt://127.0.0.1:{mosquitto.port}", "topics": ["a"]}
    names = []
    for _ in range(2):
        async with Driver(tmp_path, **at) as driver:
            names.append(driver.source._session.client_id)
    assert names[0] == names[1]
    assert names[0].isalnum()
    assert len(names[0]) <= 23
    assert (tmp_path / "session.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"client_id": 1}', "\x00"])
def test_a_damaged_file_is_told_and_made_anew(tmp_path, text):
    (tmp_path / "session.json").write_text(text)
    source = MqttSource(url="mqtt://localhost", topics=["a"])
    told = []
    source.tell = told.append
    source.remember(tmp_path, [])
    assert "may be stored twice" in told[0]
    assert "under a new client id" in told[0]
    assert json.loads((tmp_path / "session.json").read_text())["client_id"] == source._session.client_id


def test_another_broker_or_client_has_another_session(tmp_path):
    def session(**settings):
        source = MqttSource(**{"url": "mqtt://localhost", "topics": ["a"], **settings})
        source.remember(tmp_path, [])
        return json.loads((tmp_path / "session.json").read_text())

    first = session()
    (tmp_path / "session.json").write_text(json.dumps({**first, "known": [[5, 1, 77]], "number": 5}))
    assert session()["known"] == [[5, 1, 77]]
    assert session(url="mqtt://other")["known"] == []
    (tmp_path / "session.json").write_text(json.dumps({**first, "known": [[5, 1, 77]], "number": 5}))
    other = session(client_id="mine")
    assert (other["client_id"], other["known"]) == ("mine", [])


@run
async def test_nothing_is_answered_that_could_not_be_noted(tmp_path, settings, mosquitto):
    """A disk that is full: PUBREC waits, and goes out once there is room."""
    settings |= {"version": "5", "qos": 2}
    name = name_of(settings)
    async with Driver(tmp_path / "state", **settings) as driver:
        driver.commits = False
        await publish(mosquitto.port, [(f"{name}/a/b", b"1")], qos=2)
        await driver.until_lines(1)
        (tmp_path / "state").rename(tmp_path / "away")
        with pytest.raises(TransientError, match="cannot note what the broker may be told: No such file"):
            await driver.source.commit(driver.chunks[0].position)
        (tmp_path / "away").rename(tmp_path / "state")
        await publish(mosquitto.port, [(f"{name}/a/b", b"2")], qos=2)
        await driver.until_lines(2)
        await driver.source.commit(driver.chunks[1].position)
        await quiet(mosquitto.port, f"quiet/{name}")
    async with Driver(tmp_path / "state", **settings) as driver:
        await publish(mosquitto.port, [(f"{name}/a/b", b"3")], qos=2)
        assert [json.loads(line)["value"] for line in await driver.until_lines(1)] == [3]


# Settings


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"url": "http://x"}, "expected mqtt://host:port"),
        ({"url": "mqtt://"}, "expected mqtt://host:port"),
        ({"url": "mqtt://x:99999"}, "expected mqtt://host:port"),
        ({"url": "mqtt://x/path"}, "expected mqtt://host:port"),
        ({"url": "mqtt://me:s3cret@x"}, "as `username` and `password`, not in the URL"),
        ({"topics": []}, "at least 1"),
        ({"topics": [""]}, "expected a topic filter"),
        ({"topics": ["a/#/b"]}, "can only be the last"),
        ({"topics": ["a/b+"]}, "take a whole level"),
        ({"topics": ["a/x{b}"]}, "take a whole level"),
        ({"topics": ["{a}/{a}"]}, "the same name"),
        ({"topics": ["$share/g"], "version": "5"}, r"expected \$share/GROUP/FILTER"),
        ({"topics": ["$share/g/a"]}, "needs `version: 5`"),
        ({"topics": ["a/{x}", "a/+"]}, "is there twice"),
        ({"topics": ["{topic}/a"]}, "both name a column 'topic'"),
        ({"topics": [{"topic": "a", "qos": 3}]}, "qos"),
        ({"qos": 3}, "qos"),
        ({"version": "3.1"}, "version"),
        ({"add": {"x": "colour"}}, "add"),
        ({"format": "csv", "add": {"t": "topic"}}, "can get columns"),
        ({"format": "csv", "topics": ["{a}"]}, "can get columns"),
        ({"format": {"type": "json", "records": "x"}, "topics": ["{a}"]}, "can get columns"),
        ({"format": {"type": "lines", "pattern": "combined"}, "topics": ["{a}"]}, "can get columns"),
        ({"tls": {}}, "only with mqtts://"),
        ({"url": "mqtts://x", "tls": {"cert": "x.pem"}}, "`cert` and `key` together"),
        ({"password": "s3cret"}, "without `username`"),
        (
            {"url": "mqtt://x", "username": "me", "password": "s3cret"},
            "use mqtts://, or set `insecure: true`",
        ),
        ({"username": "me", "password": "s3cret" * 20_000}, "at most 65,535 bytes"),
        ({"client_id": ""}, "1 to 65,535 bytes"),
        ({"client_id": "x" * 70_000}, "1 to 65,535 bytes"),
        ({"receive_maximum": 0}, "receive_maximum"),
        ({"keep_alive": "20h"}, "keep_alive"),
        ({"session_expiry": 0}, "session_expiry"),
    ],
)
def test_settings_that_do_not_fit(settings, text):
    source = {"type": "mqtt", "url": "mqtt://localhost", "topics": ["a"], **settings}
    with pytest.raises(ConfigurationError, match=text) as error:
        from_mapping({"sources": [source], "storage": [{"type": "memory"}]})
    assert "s3cret" not in str(error.value)


def test_settings_that_do():
    source = MqttSource(url="mqtt://x", topics=["a"], username="me", password="s", insecure=True, version=5)
    assert source.config.version == "5"
    assert "s" not in str(source.config.password)
    for spec, codec in [
        (None, "ndjson"),
        ("json", "ndjson"),
        ("lines", "ndjson"),
        ({"type": "json", "columns": {"a": "string"}}, {"type": "ndjson", "columns": {"a": "string"}}),
        ({"type": "json", "records": "x"}, {"type": "json", "records": "x"}),
        ("syslog", "syslog"),
    ]:
        assert MqttSource(url="mqtt://x", topics=["a"], format=spec).format() == codec


@pytest.mark.parametrize(
    ("qos", "lost", "doubled"),
    [
        ((0,), True, False),
        ((1,), False, True),
        ((2,), False, False),
        ((2, 1), False, True),
        ((2, 0), True, False),
    ],
)
def test_what_is_promised(qos, lost, doubled):
    topics = [{"topic": f"a{number}", "qos": each} for number, each in enumerate(qos)]
    source = MqttSource(url="mqtt://x", topics=topics)
    assert bool(source.lost_before_spool) == lost
    assert bool(source.doubled_before_spool) == doubled
