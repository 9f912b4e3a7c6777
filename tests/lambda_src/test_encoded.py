import base64
import random
import textwrap
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambda_src.encoded import decoded
from lambda_src.errors import RequestError
from lambda_src.images import MAX_BYTES

BODY = bytes(range(256)) * 2 + b"!"
PLAIN = base64.b64encode(BODY).decode()
URL_SAFE = base64.urlsafe_b64encode(BODY).decode()
MIME = base64.encodebytes(BODY).decode()
ODD = PLAIN[:10] + " " + PLAIN[10:]


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        MIME,
        MIME.replace("\n", "\r\n"),
        MIME.replace("\n", "\n    "),
        f"    {PLAIN}",
        MIME.strip().replace("\n", " "),
        textwrap.fill(PLAIN, 64),
        f"\n  {PLAIN}\t\n",
        # One space is no plus sign: with one more digit it would be no base64.
        ODD,
        f"data:image/png;base64,{PLAIN}",
        f"DATA:;BASE64, {PLAIN}",
        f"data:image/png;name=a.png;base64,{URL_SAFE}",
        "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("=", "%3D"),
        f"data:image/jpeg;charset=utf-8;base64,{MIME}",
        "data:image/png;base64," + MIME.replace("\n", "%0A"),
        f"data:image/png;base64;charset=utf-8,{PLAIN}",
        f" data:image/png;base64,{PLAIN}\n",
        f"\r\n\tdata:image/png;base64,{PLAIN}",
        f"\ufeffdata:image/png;base64,{PLAIN}",
        f"\ufeff{PLAIN}",
        f"data:image/png;base64,{PLAIN}#page=1",
    ],
)
def test_every_spelling_of_base64_that_has_one_meaning(text: str) -> None:
    assert decoded(text) == BODY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\u00e9\u00e9\u00e9\u00e9", "character 1 is '\u00e9'"),
        ("AAAA%AAA", "character 5 is '%'"),
        ("AAAA====AAAA", "character 5 is '='"),
        (PLAIN[:100] + "\x00" + PLAIN[100:], "character 101 is '\\x00'"),
        ("https://example.com/dog.jpg", 'a URL goes into "url"'),
        ("AAAAA", "cut short"),
        ("AAA ", "plus signs"),
        ("AAAA AAA AAAA AAAA AAA AA==", "plus signs"),
        ("data:image/png," + PLAIN, "no ;base64,"),
        ("data:image/svg+xml;utf8,<svg/>", "no ;base64,"),
        ("data:image/png;base64", "no ;base64,"),
        ("data:image/jpeg,%FF%D8\ud800", "no ;base64,"),
        ("data:image/png;base64,%", "character 1 is '%'"),
    ],
)
def test_other_text_is_refused_with_its_fault(text: str, said: str) -> None:
    with pytest.raises(RequestError) as refusal:
        decoded(text)
    assert refusal.value.status == 400
    assert said in refusal.value.message


@pytest.mark.parametrize("head", ["data:image/png,", "DATA:image/jpeg;name=a.jpg,", "data:,"])
def test_an_image_in_percent_encoding(head: str) -> None:
    image = b"\x89PNG\r\n\x1a\n" + BODY
    assert decoded(head + quote(image) + "#page=1") == image


def test_the_size_that_counts_is_that_of_the_image() -> None:
    largest = bytes(MAX_BYTES)
    assert decoded(base64.encodebytes(largest).decode()) == largest
    with pytest.raises(RequestError) as refusal:
        decoded(base64.b64encode(largest + b"!").decode())
    assert refusal.value.status == 413


@given(st.binary(max_size=300), st.integers(min_value=1, max_value=80), st.sampled_from("\n\r "))
def test_what_is_encoded_and_wrapped_comes_back(body: bytes, width: int, end: str) -> None:
    text = base64.b64encode(body).decode()
    wrapped = end.join(text[i : i + width] for i in range(0, len(text), width))
    assert decoded(wrapped) == body


@pytest.mark.parametrize("seed", range(20))
def test_lost_plus_signs_are_not_taken_for_nothing(seed: int) -> None:
    text = base64.b64encode(random.Random(seed).randbytes(2000)).decode()
    assert "+" in text
    with pytest.raises(RequestError, match="plus signs"):
        decoded(text.replace("+", " "))


@given(st.text(max_size=80), st.sampled_from(["", "data:", "data:;base64,"]))
def test_any_text_is_decoded_or_refused(text: str, prefix: str) -> None:
    with suppress(RequestError):
        assert isinstance(decoded(prefix + text), bytes)
