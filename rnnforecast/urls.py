"""URLs of object stores as text: split, join, hide secrets. Standard library."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, quote

from rnnforecast.errors import UsageError

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}
_AZURE = (
    "account",
    *("blob_storage_authority", "blob_storage_scheme"),
    *("dfs_storage_authority", "dfs_storage_scheme"),
)
_NAMES = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous", "tls_ca_file_path"),
    "gs": ("endpoint_override", "scheme", "project_id", "anonymous"),
    "az": _AZURE,
    "abfss": _AZURE,
}
"""What a query may say, by scheme; of other schemes nothing."""
_SECRETS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "abfss": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""Where secrets belong instead, by scheme."""
_COLLAPSED = re.compile(r"(s3|s3a|s3n|gs|gcs|az|abfs|abfss|https?|file):/(?!/)", re.IGNORECASE)


@dataclass(frozen=True)
class Url:
    """A URL, taken apart."""

    scheme: str
    authority: str
    """The bucket; of `abfss` the container and the account, of `https` the host."""
    key: str
    """What follows it, without slashes at either end; no letter is escaped."""
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return it as text, which leads to the same place."""
        query = "&".join(f"{name}={quote(value, safe=':/.')}" for name, value in self.query)
        path = f"{self.authority}/{self.key}" if self.key else self.authority
        return f"{self.scheme}://{path}" + f"?{query}" * bool(query)

    def below(self, name: str) -> Url:
        """Return what lies below it."""
        return self.at(f"{self.key}/{name}".strip("/"))

    @property
    def path(self) -> PurePosixPath:
        """The key as a path, for its name and its ending."""
        return PurePosixPath(self.key)

    def at(self, key: str) -> Url:
        """Return the URL of another key of the same bucket."""
        return replace(self, key=key)


def is_url(text: object) -> bool:
    """Tell whether a text is a URL rather than a path."""
    return isinstance(text, str) and _URL.fullmatch(text) is not None


def without_query(text: str) -> str:
    """Return what a file is called, be it a path or a URL: for the ending of its name."""
    return text.partition("?")[0] if is_url(text) else text


def parse_url(text: str) -> Url:
    """Take a URL apart. Raises `UsageError` for one without a bucket, or with a secret in it.

    A message never quotes what may be a secret.
    """
    match = _URL.fullmatch(text)
    assert match is not None, "only what `is_url` knows as one"
    spelt, rest = match[1].lower(), match[2]
    scheme = _ALIASES.get(spelt, spelt)
    if scheme == "file":
        raise UsageError(f"{text} is a path of this machine", hint=f"name it as  {rest}")
    place, _, said = rest.partition("?")
    authority, _, key = place.partition("/")
    login, has_login, host = authority.rpartition("@")
    if has_login and (scheme != "abfss" or ":" in login):
        raise _secret(f"the URL {spelt}://...@{host} carries a login", scheme)
    query = tuple(parse_qsl(said, keep_blank_values=True))
    for name, _value in query:
        if name not in _NAMES.get(scheme, ()):
            raise _secret(f"{name!r} cannot stand in the query of {spelt}://{authority}", scheme)
    if not authority:
        raise UsageError(
            f"{spelt}:// names no bucket", hint=f"write it as  {spelt}://bucket/folder/name"
        )
    return Url(scheme, authority, key.strip("/"), query)


def check_not_collapsed(path: str) -> None:
    """Raise `UsageError` for a path that was a URL before `pathlib` took one of its slashes."""
    if _COLLAPSED.match(path):
        raise UsageError(
            f"{path} is a URL where a path of this machine is asked for",
            code="not-on-a-store",
            hint="name a path; in Python, pass a URL as text, not as a pathlib.Path",
        )


def _secret(message: str, scheme: str) -> UsageError:
    known = _NAMES.get(scheme, ())
    return UsageError(
        message,
        code="url",
        hint=f"a query may say {', '.join(known) or 'nothing'}; secrets belong in "
        + _SECRETS.get(scheme, "the environment")
        + ", for command lines and manifests keep URLs",
    )
