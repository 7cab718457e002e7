"""Secrets are taken out of texts, however they are written there."""

from __future__ import annotations

import html
import json
import time
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from collectors.censor import Censor

SECRETS = [
    "correct horse/battery+staple",
    "p%40ss@:word 1",
    "quo\"te's\\d<",
    "schlüssel&ß😀",
    "a=b?c#d",
    "line\nbreak",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_however_they_are_written(secret):
    for written in [
        secret,
        repr(secret)[1:-1],
        json.dumps({"key": secret}),
        json.dumps({"key": secret}, ensure_ascii=False),
        json.dumps(secret).replace("/", "\\/").replace("<", "\\u003c").replace("&", "\\u0026"),
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        "?" + urlencode({"key": secret}),
        URL("https://api.example/x").update_query({"key": secret}).raw_path_qs,
        html.escape(secret),
    ]:
        told = Censor([secret])(f"401: {written} is not known")
        assert "***" in told, written
        assert secret not in told
        assert quote(secret, safe="") not in told


def test_lower_case_of_what_is_encoded():
    assert Censor(["a/b@c"])("?key=a%2fb%40c&x=1") == "?key=***&x=1"


@given(st.text(min_size=4, max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_nothing_of_a_secret_is_left(secret, before, behind):
    told = Censor([secret])(before + secret + behind)
    assert "***" in told
    assert secret not in told.replace("***", "\0")


@given(st.lists(st.text(min_size=1, max_size=8), max_size=5), st.text(max_size=60))
def test_any_secrets_and_any_text(secrets, text):
    told = Censor(secrets)(text)
    assert all(secret not in told.replace("***", "\0") for secret in secrets if len(secret) > 3)


def test_short_ones_only_where_they_stand_alone():
    assert Censor(["1"])("1 of 11 in line 1") == "*** of 11 in line ***"
    assert Censor(["k7"])(r"bad key\nk7, %20k7, key_k7, k78") == r"bad key\n***, %20***, key_***, k78"


def test_those_that_overlap_and_none_at_all():
    assert Censor(["pass", "password"])("the password, the pass") == "the ***, the ***"
    assert Censor(["pass word1", "a pass"])("x a pass word1") == "x ***"
    assert Censor(["", "x" * 4])("nothing is hidden") == "nothing is hidden"


def test_long_ones_take_no_long_time():
    began = time.process_time()
    for secret in ["ab" * 50_000 + "\n", "\\" * 1000 + "x", "%" * 1000 + "x"]:
        censor = Censor([secret])
        assert censor("\\" * 2500 + "%" * 2500 + secret).endswith("***")
    assert time.process_time() - began < 20
