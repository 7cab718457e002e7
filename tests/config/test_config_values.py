"""Variables: `${NAME}`, `${NAME:-default}`, `${file:path}`; what they are replaced with is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.config._values import Variables
from collectors.config.load import load
from collectors.errors import ConfigurationError

SECRET = "hunter2-canary"


def resolve(text, folder="/nowhere", **environment):
    variables = Variables(Path(folder), environment)
    return variables.resolve(text), variables


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x${A}y${B}", "x1ytwo"),
        ("${NO:-else}", "else"),
        ("${EMPTY:-else}", "else"),
        ("${EMPTY}", ""),
        ("${NO:-}", ""),
        ("${NO:-a:-b}", "a:-b"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $ {A}", "$A $ {A}"),
    ],
)
def test_replaced(text, value):
    assert resolve(text, A="1", B="two", EMPTY="")[0] == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("${NO}", "the environment variable NO is not set"),
        ("${}", "is not a variable"),
        ("${a b}", "is not a variable"),
        ("${A", "has no '}'"),
        ("${A} ${", "has no '}'"),
        ("${file:~nobody_at_all/x}", "cannot read the file"),
        ("${file:none}", "cannot read the file '/nowhere/none': No such file"),
    ],
)
def test_not_replaceable(text, words):
    _, variables = resolve({"a": [text]}, A="1")
    ((message, _),) = variables.missing.values()
    assert words in message
    assert list(variables.missing) == [("a", 0)]


def test_nearest_name_of_a_variable():
    _, variables = resolve("${PG_PASWORD}", PG_PASSWORD="x")
    assert variables.missing[()][1] == "did you mean 'PG_PASSWORD'?"


@given(st.text(max_size=60))
def test_text_without_variables_is_left_alone(text):
    value, variables = resolve(text)
    if "${" not in text:
        assert value == text
        assert not variables.replaced


@given(st.lists(st.sampled_from(["${A}", "$${", "x", "é\n", "${B:-}", " "]), max_size=12))
def test_origins_tell_where_each_character_came_from(parts):
    text = "".join(parts)
    value, variables = resolve(text, A="long value")
    if not variables.replaced:
        return
    done = variables.replaced[()]
    assert len(done.origins) == len(value)
    for character, origin in zip(value, done.origins, strict=True):
        assert text[origin] in {character, "$"}


def test_value_is_never_read_as_structure(write, good, monkeypatch):
    monkeypatch.setenv("TRICK", "x]\nstorage: []\n#")
    config = load(write(good.replace("readings.db", '"${TRICK}"')))
    assert config.backends["sqlite"].settings.path.endswith("x]\nstorage: []\n#")


def test_type_of_the_setting_decides(write, good, monkeypatch):
    monkeypatch.setenv("SIZE", "64 MiB")
    monkeypatch.setenv("WAIT", "2")
    monkeypatch.setenv("FOLLOW", "true")
    text = good.replace("format:", "follow: ${FOLLOW}, format:").replace("{type", '{"type"')
    text = text.replace("${FOLLOW}", '"${FOLLOW}"').replace("readings.db", 'x, lock_timeout: "${WAIT}"')
    config = load(write(f"memory: ${{SIZE}}\n{text}"))
    assert config.memory == 64 * 2**20
    assert config.sources["readings"].settings.follow is True
    assert config.backends["sqlite"].settings.lock_timeout == 2.0


def test_file(write, good, tmp_path):
    (tmp_path / "where.txt").write_text("there.db\r\n")
    config = load(write(good.replace("readings.db", '"${file:where.txt}"')))
    assert config.backends["sqlite"].settings.path == str(tmp_path / "there.db")


@pytest.mark.parametrize(
    ("content", "words"), [(b"x" * 65_537, "longer than 64 KiB"), (b"\xff", "not UTF-8")]
)
def test_file_that_cannot_be_used(write, good, tmp_path, content, words):
    (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        load(write(good.replace("readings.db", '"${file:secret}"')))


def test_missing_variable_is_one_problem_in_its_place(problems, good):
    (found,) = problems(f"memory: ${{NOT_THERE_AT_ALL}}\n{good}")
    assert str(found).startswith(
        "pipeline.yaml:1:9  memory: the environment variable NOT_THERE_AT_ALL is not set;"
    )


LEAKS = [
    "memory: ${SECRET}",
    "name: ${SECRET}!",
    "${SECRET}: 1",
    "state: [${SECRET}]".replace("${SECRET}", '"${SECRET}"'),
    'sources: [{type: "${SECRET}"}]',
    'sources: [{type: file, path: x, format: "${SECRET}"}]',
    'sources: [{type: file, path: x, id: "${SECRET} "}]',
    'sources: [{type: file, path: x, format: ndjson, cron: 5, every: "${SECRET}"}]',
    'sources: [{type: file, path: x, format: ndjson, start: "${SECRET}"}]',
    'storage: [{type: sqlite, path: x, lock_timeout: "a ${file:secret}"}]',
    'storage: [{type: sqlite, path: "${file:secret}/\\0"}]',
    'processors: [{type: "${SECRET}:x"}]',
    'processors: [{type: "json:${SECRET}"}]',
    'pipelines: {a: {from: ["${SECRET}"], to: "${SECRET}"}}',
]


@pytest.mark.parametrize("text", LEAKS)
@pytest.mark.parametrize("secret", [SECRET, "a'b\"c\nd%", "q"])
def test_secret_is_in_no_message(write, good, tmp_path, monkeypatch, text, secret):
    monkeypatch.setenv("SECRET", secret)
    (tmp_path / "secret").write_text(secret)
    base = "" if text.startswith("sources") else good.partition("storage")[0]
    base += "" if text.startswith("storage") else "storage: [{type: sqlite, path: x}]\n"
    with pytest.raises(ConfigurationError) as caught:
        load(write(f"{base}{text}\n"))
    message = str(caught.value).replace("${SECRET}", "")
    if len(secret) > 1:
        assert secret not in message
        assert repr(secret)[1:-1] not in message
        assert json.dumps(secret)[1:-1] not in message
    assert "".join(message.split()) != ""


def test_secret_is_not_in_repr_or_version(write, good, monkeypatch):
    text = good.replace("readings.db", '"${SECRET}.db"')
    monkeypatch.setenv("SECRET", SECRET)
    config = load(write(text))
    assert SECRET in config.backends["sqlite"].settings.path
    assert SECRET not in repr(config)
    monkeypatch.setenv("SECRET", "other")
    assert load(write(text)).version == config.version


WITH_SECRET = """\
from pydantic import SecretStr
from collectors.collection.base import Source, SourceConfig

class OwnConfig(SourceConfig):
    password: SecretStr
    headers: dict[str, SecretStr] = {}

class Own(Source[OwnConfig]):
    def read(self, since):
        yield from ()
"""


def test_secret_in_clear_text(write, problems, tmp_path):
    """A setting that is declared as a secret is not shown and not in the version, even when written down."""
    name = f"with_secret_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(WITH_SECRET)

    def text(password):
        return f'sources: [{{type: "{name}:Own", password: {password}, headers: {{a: {password}}}}}]\nstorage: [{{type: sqlite, path: x}}]\n'

    for found in problems(text("4711")):
        assert found.value == '"***"'
        assert "4711" not in str(found)
    assert load(write(text(SECRET))).version == load(write(text("other"))).version
    assert SECRET not in repr(load(write(text(SECRET))))


WITH_KINDS = """\
from typing import Annotated, Literal
from pydantic import Field, SecretStr
from collectors.collection.base import Source, SourceConfig
from collectors.settings import Settings

class Token(Settings):
    type: Literal["token"]
    token: SecretStr

class Login(Settings):
    type: Literal["login"]
    user: str
    password: SecretStr

class OwnConfig(SourceConfig):
    auth: Annotated[Token | Login, Field(discriminator="type")]

class Own(Source[OwnConfig]):
    def read(self, since):
        yield from ()
"""


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("{type: login, user: me, password: 4711}", 'auth.password = "***": expected text; put it in quotes'),
        ("{type: login, user: me, password: a, passwrd: 4711}", "did you mean 'password'?"),
        ("{type: key, key: 4711}", "expected 'type' to be one of 'token', 'login', got 'key'"),
        ("{token: 4711}", "expected 'type', which says what kind it is"),
        ('"4711"', 'auth = "***": expected a mapping'),
    ],
)
def test_settings_of_several_kinds(problems, tmp_path, auth, message):
    """The kind that is meant says which settings there are; a secret of any of them is not shown."""
    name = f"with_kinds_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(WITH_KINDS)
    (found,) = problems(
        f'sources: [{{type: "{name}:Own", auth: {auth}}}]\nstorage: [{{type: sqlite, path: x}}]\n'
    )
    assert message in str(found)
    assert "4711" not in str(found)


def test_login_in_an_address_is_hidden(problems, good):
    (found,) = problems(f"memory: postgres://me:{SECRET}@host/db\n{good}")
    assert found.value == '"postgres://***@host/db"'
