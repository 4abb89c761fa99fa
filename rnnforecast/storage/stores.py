"""The one client of object stores: pyarrow's file systems, or fsspec's."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs as pa_fs

from rnnforecast.process import holding_back
from rnnforecast.urls import Url

_T = TypeVar("_T")
CONNECT_S, ANSWER_S, ATTEMPTS = 5.0, 10.0, 3
"""So long may a connection take, so long an answer stand still, and so often is it tried."""
WRITABLE = ("s3", "gs")
"""Schemes whose objects appear whole or not at all. pyarrow shows an empty one first on Azure."""
_DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE|EXPIRED|"
    r"UNRECOGNIZED_CLIENT|PERMISSION_DENIED|UNAUTHENTICATED|InvalidClientTokenId|Forbidden|"
    r"Unauthorized|AuthenticationFailed|AuthorizationFailure|credential",
    re.IGNORECASE,
)
_SILENT = re.compile(
    r"NETWORK_CONNECTION|curlCode|timed? ?out|could ?n.t connect|failed to connect|"
    r"connection (refused|reset)|resolve host|unavailable|Retry (policy|loop)",
    re.IGNORECASE,
)
_NO_BUCKET = re.compile("NO_SUCH_BUCKET|bucket does not exist|ContainerNotFound", re.IGNORECASE)
_S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def open_object(url: Url) -> Any:
    """Open an object, to be read by ranges."""
    return _store_of(url).open_input_file(_path_of(url))


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of a name."""

    size: int | None
    """None where it is no object, but others lie below it."""
    changed_ns: int | None


def look_at(urls: Sequence[Url]) -> list[ObjectInfo | None]:
    """Look at many names of one store side by side; None where there is nothing."""
    if not urls:
        return []
    with naming(urls[0]):
        paths = [_path_of(url) for url in urls]
        found = answering(lambda: _store_of(urls[0]).get_file_info(paths))
    return [_state_of(info) for info in found]


def list_below(folder: Url, *, is_deep: bool) -> dict[Url, ObjectInfo]:
    """Return the objects below a prefix, or only those right below it, in the order of names."""
    with naming(folder):
        path = _path_of(folder)
        selector = pa_fs.FileSelector(path, allow_not_found=True, recursive=is_deep)
        infos = answering(lambda: _store_of(folder).get_file_info(selector))
    found = {}
    for info in sorted(infos, key=lambda info: info.path):
        state = _state_of(info)
        if state is not None and state.size is not None:
            found[folder.below(info.path.removeprefix(path).strip("/"))] = state
    return found


def put(url: Url, content: Any) -> None:
    """Make an object of these bytes: who reads sees what was there before, or all of them.

    A signal is held back meanwhile, for a stream that is left early would be closed, and so be
    published with what it has.
    """
    with naming(url), holding_back(lambda: None):
        check_writable(url)
        answering(lambda: _write(url, content))


def _write(url: Url, content: Any) -> None:
    # By itself pyarrow would pack what is called .gz
    with _store_of(url).open_output_stream(_path_of(url), compression=None) as stream:
        stream.write(content)


def remove(url: Url) -> None:
    """Take an object away; one that is gone already is no error."""
    with naming(url):
        try:
            answering(lambda: _store_of(url).delete_file(_path_of(url)))
        except FileNotFoundError:
            return


def remove_below(folder: Url) -> None:
    """Take away all objects below a prefix."""
    with naming(folder):
        answering(lambda: _store_of(folder).delete_dir(_path_of(folder)))


def check_writable(url: Url) -> None:
    """Raise `OSError` for a store where an object could be seen before it is whole."""
    scheme = url.scheme
    if scheme not in WRITABLE:
        raise OSError(
            errno.EROFS,
            f"nothing is published on {scheme}://, where a part of it could be seen"
            if scheme in _OPENED
            else f"nothing is published on {scheme}://, only read",
            str(url),
        )


def check_bucket(url: Url) -> None:
    """Raise `OSError` where there is no bucket, or no answer; one that may not be seen passes."""
    try:
        (found,) = look_at([url.at("")])
    except PermissionError:
        return
    if found is None:
        raise OSError(errno.ENOENT, f"there is no bucket {url.authority}", str(url))


def answering(work: Callable[[], _T]) -> _T:
    """Do it in another thread, and wait: so signals are answered, whatever the network does."""
    if threading.current_thread() is not threading.main_thread():
        return work()
    found: Future[_T] = Future()

    def run() -> None:
        try:
            found.set_result(work())
        except BaseException as error:  # whoever waits raises it
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return found.result()


@contextmanager
def naming(url: Url) -> Iterator[None]:
    """Turn what a store's library raises into an `OSError` that names the URL."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise _said(error, url) from error
    except (pa.ArrowException, ValueError) as error:  # such as of an endpoint that is none
        raise _said(error, url) from error


def _said(error: Exception, url: Url) -> OSError:
    """Say in few words what is wrong; what may be a secret is in none of them."""
    text = re.sub("'[^']*'", "", str(error))  # names of buckets and keys may read like anything
    what: tuple[int, str]
    if _NO_BUCKET.search(text):
        what = errno.ENOENT, f"there is no bucket {url.authority}"
    elif isinstance(error, FileNotFoundError):
        what = errno.ENOENT, "there is no such object"
    elif _SILENT.search(text):
        what = errno.ETIMEDOUT, "the store does not answer" + _detail(text)
    elif _DENIED.search(text):
        what = errno.EACCES, "the store denies access"
    else:
        what = errno.EIO, str(error).partition(" (Request ID")[0]
    return OSError(*what, str(url))


def _detail(text: str) -> str:
    """Return what the network said, where it said something."""
    match = re.search(r"Details: ([^;()]+)", text)
    return f" ({match[1].strip()})" if match else ""


def _state_of(info: Any) -> ObjectInfo | None:
    if info.type == pa_fs.FileType.NotFound:
        return None
    return ObjectInfo(info.size if info.type == pa_fs.FileType.File else None, info.mtime_ns)


def _path_of(url: Url) -> str:
    """Return how the store's library calls it."""
    if url.scheme not in _OPENED:
        path: str = _store_of(url).handler.fs._strip_protocol(str(url))
        return path
    container = url.authority.partition("@")[0] if url.scheme == "abfss" else url.authority
    return f"{container}/{url.key}".strip("/")


@lru_cache(maxsize=8)
def _opened(store: Url) -> Any:
    """Open a store: one for each bucket and what its query says."""
    return _OPENED.get(store.scheme, _open_other)(store)


def _store_of(url: Url) -> Any:
    return _opened(url.at(""))


def _open_s3(store: Url) -> Any:
    said = dict(store.query)
    given = (said.get("endpoint_override"), *map(os.environ.get, _S3_ENDPOINTS))
    endpoint = next(filter(None, given), None)
    scheme, _, host = (endpoint or "").rpartition("://")
    regions = (said.get("region"), *map(os.environ.get, ("AWS_REGION", "AWS_DEFAULT_REGION")))
    region = next(filter(None, regions), "us-east-1" if endpoint else None)
    return pa_fs.S3FileSystem(
        anonymous=said.get("anonymous") == "true",
        endpoint_override=host.rstrip("/") or None,
        scheme=said.get("scheme") or scheme or "https",
        region=region or pa_fs.resolve_s3_region(store.authority),
        tls_ca_file_path=said.get("tls_ca_file_path"),
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
        retry_strategy=pa_fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # a small object is one request, and no upload in parts
    )


def _open_gs(store: Url) -> Any:
    said = dict(store.query)
    return pa_fs.GcsFileSystem(
        anonymous=said.get("anonymous") == "true",
        endpoint_override=said.get("endpoint_override"),
        scheme=said.get("scheme"),
        project_id=said.get("project_id"),
        retry_time_limit=timedelta(seconds=ANSWER_S),
    )


def _open_azure(store: Url) -> Any:
    """Open Azure's store: the account stands in the URL, or in the environment as for `az`."""
    said = dict(store.query)
    host = store.authority.rpartition("@")[2] if store.scheme == "abfss" else ""
    account = host.partition(".")[0] or said.get("account")
    account = account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise OSError(
            errno.EINVAL,
            "the account is not known: set AZURE_STORAGE_ACCOUNT_NAME, or add ?account=NAME",
            str(store),
        )
    return pa_fs.AzureFileSystem(
        account,
        account_key=os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"),
        sas_token=os.environ.get("AZURE_STORAGE_SAS_TOKEN"),
        **{name: value for name, value in said.items() if name != "account"},
    )


def _open_other(store: Url) -> Any:
    """Ask fsspec for a store that pyarrow does not know."""
    unknown = f"no store is known for {store.scheme}://"
    try:
        import fsspec
    except ImportError as error:
        raise OSError(
            errno.EPROTONOSUPPORT, f"{unknown}; pip install 'rnnforecast[fsspec]'", str(store)
        ) from error
    try:
        found, _ = fsspec.core.url_to_fs(str(store))
    except (ValueError, ImportError) as error:
        raise OSError(errno.EPROTONOSUPPORT, f"{unknown} ({error})", str(store)) from error
    return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(found))


_OPENED: dict[str, Callable[[Url], Any]] = {
    "s3": _open_s3,
    "gs": _open_gs,
    "az": _open_azure,
    "abfss": _open_azure,
}
"""How a store is opened, by its scheme."""
