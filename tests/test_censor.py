"""Secrets are taken out of texts, however they are written there."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.censor import Censor

SECRETS = ["correct horse/battery+staple", "p%40ss", 'quo"te\\d', "schlüssel&ß", "a=b?c#d", "line\nbreak"]


@pytest.mark.parametrize("secret", SECRETS)
def test_however_they_are_written(secret):
    encoded = quote(secret, safe="")
    for written in [
        secret,
        repr(secret)[1:-1],
        json.dumps({"key": secret}),
        json.dumps({"key": secret}, ensure_ascii=False),
        encoded,
        encoded.lower() if secret.islower() else encoded,
        quote(secret),
        quote_plus(secret),
        "?" + urlencode({"key": secret}),
    ]:
        told = Censor([secret])(f"401: {written} is not known")
        assert "***" in told
        assert secret not in told
        assert encoded not in told


@given(st.text(min_size=4), st.text(), st.text())
def test_nothing_of_a_secret_is_left(secret, before, behind):
    told = Censor([secret])(before + secret + behind)
    assert secret not in told.replace("***", "\0") or secret in (before + behind).replace(secret, "")


def test_short_ones_only_where_they_stand_alone():
    assert Censor(["1"])("1 of 11 in line 1") == "*** of 11 in line ***"


def test_the_longest_first_and_none_at_all():
    assert Censor(["pass", "password"])("the password, the pass") == "the ***, the ***"
    assert Censor(["", "x" * 4])("nothing is hidden") == "nothing is hidden"
