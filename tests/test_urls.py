"""URLs: what is one, what it is made of, and that no secret is in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnnforecast.errors import Location, Proposal, UsageError, redact
from rnnforecast.events import Notice, WarningEvent
from rnnforecast.urls import Url, check_not_collapsed, is_url, parse_url, strip_query

SECRET = "a-secret"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://bucket/a/b.csv", True),
        ("S3://bucket/a", True),
        ("abfss://c@account.dfs.core.windows.net/a", True),
        ("https://host/a.csv", True),
        ("a/b.csv", False),
        ("c://b", False),
        ("-", False),
        ("", False),
        ("s3:/bucket/a", False),
        (Path("s3://bucket/a"), False),
    ],
)
def test_a_url_has_a_scheme_and_two_slashes(text: object, said: bool) -> None:  # noqa: FBT001
    assert is_url(text) is said


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://b/a/x.csv", Url("s3", "b", "a/x.csv")),
        ("S3A://b/a/", Url("s3", "b", "a")),
        ("gcs://b", Url("gs", "b", "")),
        ("s3://b/a b/ü#+%20.csv", Url("s3", "b", "a b/ü#+%20.csv")),
        (
            "s3://b/a?endpoint_override=http%3A%2F%2Fh:9&scheme=http",
            Url("s3", "b", "a", (("endpoint_override", "http://h:9"), ("scheme", "http"))),
        ),
        (
            "abfss://c@account.dfs.core.windows.net/a",
            Url("abfss", "c@account.dfs.core.windows.net", "a"),
        ),
    ],
)
def test_a_url_is_taken_apart_and_put_together_again(text: str, url: Url) -> None:
    assert parse_url(text) == url
    assert parse_url(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        f"s3://key:{SECRET}@bucket/a.csv",
        f"s3://{SECRET}@bucket/a.csv",
        f"abfss://c:{SECRET}@account.dfs.core.windows.net/a",
        f"s3://bucket/a?secret_key={SECRET}",
        f"az://bucket/a?sas_token={SECRET}",
        f"https://host/a.csv?X-Amz-Signature={SECRET}",
        f"foo://user:{SECRET}@host/a",
    ],
)
def test_a_url_with_a_secret_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(UsageError) as found:
        parse_url(text)

    assert SECRET not in f"{found.value.message} {found.value.hint}"
    assert "environment" in str(found.value.hint) or "_" in str(found.value.hint)


@pytest.mark.parametrize("text", ["s3://", "s3:///a.csv", "s3://?scheme=http"])
def test_a_url_without_a_bucket_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="needs a bucket"):
        parse_url(text)


def test_a_sign_that_begins_a_query_is_none_of_a_pattern() -> None:
    with pytest.raises(UsageError, match="is not allowed in the query"):
        parse_url("s3://bucket/a?b.csv=")

    assert parse_url("s3://bucket/a?").key == "a"


@pytest.mark.parametrize("text", ["s3://b/a", "gs://b/a", "https://h/a"])
def test_a_url_that_pathlib_has_shortened_is_known(text: str) -> None:
    with pytest.raises(UsageError, match="is a URL"):
        check_not_collapsed(str(Path(text)))

    check_not_collapsed("a/s3:/b")


def test_the_ending_of_a_name_is_that_before_the_query() -> None:
    assert strip_query("s3://b/x.csv?scheme=http") == "s3://b/x.csv"
    assert strip_query("what?.csv") == "what?.csv"


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        (f"s3://key:{SECRET}@bucket/a.csv", "s3://...@bucket/a.csv"),
        (f"s3://{SECRET}@bucket/a.csv", "s3://...@bucket/a.csv"),
        (f"s3://key:x/{SECRET}@bucket/a", "s3://...@bucket/a"),
        (f"s3:/key:{SECRET}@b", "s3:/...@b"),
        (f"file://user:{SECRET}@h", "file://...@h"),
        (f"abfss://c:{SECRET}@account.net/a", "abfss://...@account.net/a"),
        (f"s3://b/a?endpoint_override=u:{SECRET}@h", "s3://b/a?endpoint_override=...@h"),
        (f"https://h/a.csv?x=1&Api-Token={SECRET}", "https://h/a.csv?x=1&Api-Token=..."),
        ("abfss://c@account.net/a", "abfss://c@account.net/a"),
        ("https://h:80/a/b?x=1", "https://h:80/a/b?x=1"),
        ("s3://b/a.csv of me@work", "s3://b/a.csv of me@work"),
        ("at 12:30 a@b, c:/d", "at 12:30 a@b, c:/d"),
    ],
)
def test_logins_and_secrets_never_stand_in_messages(text: str, redacted: str) -> None:
    message = f"cannot use '{text}', or {text}"
    hidden = f"cannot use '{redacted}', or {redacted}"
    error = UsageError(message, location=Location(text), proposals=[Proposal(("--data", text))])

    assert redact(message) == str(error) == error.message == hidden
    assert error.location == Location(redacted)
    assert SECRET not in str(error.advice)
    assert WarningEvent("code", message).text == Notice(message).message == hidden


@pytest.mark.parametrize(
    "text", [f"s3://b/a?endpoint_override=user:{SECRET}@host", f"s3://key:x/{SECRET}@bucket/a"]
)
def test_a_login_in_an_odd_place_is_one_all_the_same(text: str) -> None:
    with pytest.raises(UsageError, match="contains credentials") as caught:
        parse_url(text)
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
