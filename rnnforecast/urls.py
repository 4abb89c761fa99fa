"""URLs of object stores: parse, join, refuse secrets. Standard library only."""

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
_QUERY_NAMES = {
    "s3": ("endpoint_override", "scheme", "region", "anonymous", "tls_ca_file_path"),
    "gs": ("endpoint_override", "scheme", "project_id", "anonymous"),
    "az": _AZURE,
    "abfss": _AZURE,
}
"""Query parameters by scheme; other schemes have none."""
_SECRETS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
    "abfss": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""Where secrets belong instead of in a URL, by scheme."""
_COLLAPSED = re.compile(r"(s3|s3a|s3n|gs|gcs|az|abfs|abfss|https?|file):/(?!/)", re.IGNORECASE)


_DATABASE = re.compile(r"(sqlite|duckdb):(?:///)?(?!//)(.+)", re.DOTALL)
"""`sqlite:///file.db` lies in the working directory; an absolute path has four slashes."""


@dataclass(frozen=True)
class Database:
    """A file that is a database, such as `sqlite:///file.db`."""

    kind: str
    """sqlite or duckdb."""
    path: str

    def __str__(self) -> str:
        """Return the address as it is typed."""
        return f"{self.kind}:///{self.path}"


def parse_database(text: object) -> Database | None:
    """Return the database that a text names; None for any other text."""
    match = _DATABASE.fullmatch(text) if isinstance(text, str) else None
    return match and Database(match[1], match[2])


@dataclass(frozen=True)
class Url:
    """A parsed URL."""

    scheme: str
    authority: str
    """The bucket; of `abfss` the container and the account, of `https` the host."""
    key: str
    """The path below it, without slashes at either end and without escapes."""
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """Return the URL as text; parsing it gives an equal URL."""
        query = "&".join(f"{name}={quote(value, safe=':/.')}" for name, value in self.query)
        path = f"{self.authority}/{self.key}" if self.key else self.authority
        return f"{self.scheme}://{path}" + f"?{query}" * bool(query)

    def child(self, name: str) -> Url:
        """Return the URL of a name below this one."""
        return self.with_key(f"{self.key}/{name}".strip("/"))

    @property
    def path(self) -> PurePosixPath:
        """The key as a path: its name and its suffix."""
        return PurePosixPath(self.key)

    def with_key(self, key: str) -> Url:
        """Return the URL of another key in the same bucket."""
        return replace(self, key=key)


def is_url(text: object) -> bool:
    """Tell whether text is a URL and not a path."""
    return isinstance(text, str) and _URL.fullmatch(text) is not None


def strip_query(text: str) -> str:
    """Return a path, or a URL without its query, so that the end is the file name's suffix."""
    return text.partition("?")[0] if is_url(text) else text


def parse_url(text: str) -> Url:
    """Parse a URL that `is_url` accepts. Scheme aliases are resolved: `s3a` is `s3`.

    Raises `UsageError` for a URL of a local file, without a bucket, or with a login or an unknown
    query parameter, which may be a secret: messages never quote one.
    """
    match = _URL.fullmatch(text)
    assert match is not None, "only texts that `is_url` accepts"
    alias, address = match[1].lower(), match[2]
    scheme = _ALIASES.get(alias, alias)
    if scheme == "file":
        raise UsageError(f"{text} is a local path", hint=f"write it as  {address}")

    path, _, query_text = address.partition("?")
    authority, _, key = path.partition("/")
    login, has_login, host = authority.rpartition("@")
    if has_login and (scheme != "abfss" or ":" in login):  # abfss://container@account is no login
        raise _secret_error(f"the URL {alias}://...@{host} contains credentials", scheme)
    if scheme in _QUERY_NAMES and ":" in authority:  # a secret with a slash in it
        raise _secret_error(f"the URL {alias}://... contains credentials", scheme)
    query = tuple(parse_qsl(query_text, keep_blank_values=True))
    for name, value in query:
        if "@" in value:
            raise _secret_error(f"{name} of {alias}://{authority} contains credentials", scheme)
        if name not in _QUERY_NAMES.get(scheme, ()):
            message = f"{name!r} is not allowed in the query of {alias}://{authority}"
            raise _secret_error(message, scheme)

    if not authority:
        raise UsageError(
            f"{alias}:// needs a bucket", hint=f"write it as  {alias}://bucket/folder/name"
        )
    return Url(scheme, authority, key.strip("/"), query)


def check_not_collapsed(path: str) -> None:
    """Raise `UsageError` for a path that was a URL before `pathlib` removed one of its slashes."""
    if _COLLAPSED.match(path):
        raise UsageError(
            f"{path} is a URL, but a local path is needed",
            code="not-on-a-store",
            hint="use a local path; in Python, pass a URL as a string, not as a pathlib.Path",
        )


def _secret_error(message: str, scheme: str) -> UsageError:
    known = _QUERY_NAMES.get(scheme, ())
    return UsageError(
        message,
        code="url",
        hint=f"allowed in the query: {', '.join(known) or 'nothing'}; put secrets in "
        + _SECRETS.get(scheme, "the environment")
        + ", because URLs end up in logs and manifests",
    )
