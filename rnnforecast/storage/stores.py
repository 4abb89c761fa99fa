"""The one client of object stores: pyarrow's file systems, or fsspec's."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs as pa_fs

from rnnforecast.process import defer_signals
from rnnforecast.urls import Url

_T = TypeVar("_T")
CONNECT_S, ANSWER_S, ATTEMPTS = 5.0, 10.0, 3
"""Seconds until a connection must stand, seconds without an answer, and how often it is tried."""
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


@dataclass(frozen=True)
class ObjectInfo:
    """Size and time of a name on a store."""

    size: int | None
    """In bytes; None where there is no object of this name, but others lie below it."""
    mtime_ns: int | None


def get_infos(urls: Sequence[Url]) -> list[ObjectInfo | None]:
    """Return size and time of many names of one store, all asked for at once; None for none."""
    if not urls:
        return []
    file_infos = call(urls[0], lambda: _store_of(urls[0]).get_file_info(list(map(_path_of, urls))))
    return [_object_info(file_info) for file_info in file_infos]


def list_objects(folder: Url, *, recursive: bool) -> dict[Url, ObjectInfo]:
    """Return the objects below a prefix, or only those right below it, in the order of names."""

    def find() -> tuple[str, list[Any]]:
        path = _path_of(folder)
        selector = pa_fs.FileSelector(path, allow_not_found=True, recursive=recursive)
        return path, _store_of(folder).get_file_info(selector)

    path, file_infos = call(folder, find)
    objects = {}
    for file_info in sorted(file_infos, key=lambda file_info: file_info.path):
        info = _object_info(file_info)
        if info is not None and info.size is not None:
            objects[folder.child(file_info.path.removeprefix(path).strip("/"))] = info
    return objects


def open_object(url: Url) -> Any:
    """Open an object, to be read by ranges."""
    return _store_of(url).open_input_file(_path_of(url))


def put(url: Url, content: Any) -> None:
    """Write an object: a reader sees the former content, or all of the new one.

    Signals are deferred meanwhile: leaving a stream early closes it, which would publish the bytes
    that it has.
    """

    def write() -> None:
        # Without `compression=None` pyarrow compresses what is called .gz
        with _store_of(url).open_output_stream(_path_of(url), compression=None) as stream:
            stream.write(content)

    with defer_signals(lambda: None):
        check_writable(url)
        call(url, write)


def remove(url: Url) -> None:
    """Remove an object; one that is gone already is no error."""

    def delete() -> None:
        with suppress(FileNotFoundError):
            _store_of(url).delete_file(_path_of(url))

    call(url, delete)


def remove_tree(folder: Url) -> None:
    """Remove all objects below a prefix."""
    call(folder, lambda: _store_of(folder).delete_dir(_path_of(folder)))


def check_writable(url: Url) -> None:
    """Raise `OSError` for a store where an object could be seen before it is complete."""
    if url.scheme not in WRITABLE:
        reason = (
            "where incomplete files would be visible"
            if url.scheme in _OPENERS
            else "which is read-only"
        )
        message = f"cannot publish to {url.scheme}://, {reason}"
        raise OSError(errno.EROFS, message, str(url))


def check_bucket(url: Url) -> None:
    """Raise `OSError` where there is no bucket, or no answer; one that denies access passes."""
    try:
        (info,) = get_infos([url.with_key("")])
    except PermissionError:
        return
    if info is None:
        raise OSError(errno.ENOENT, f"bucket {url.authority} does not exist", str(url))


def call(url: Url, function: Callable[[], _T]) -> _T:
    """Call a function of a store's library; raise what it raises as an `OSError` with the URL.

    It runs in another thread, so that signals are handled while the network hangs.
    """
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised by `future.result`
            future.set_exception(error)

    try:
        if threading.current_thread() is not threading.main_thread():
            return function()
        threading.Thread(target=run, daemon=True).start()
        return future.result()
    except (OSError, pa.ArrowException, ValueError) as error:
        # A `ValueError` comes from an endpoint that is no URL.
        if isinstance(error, OSError) and error.filename is not None:
            raise  # it names the URL already
        raise _translated(error, url) from error


def _translated(error: Exception, url: Url) -> OSError:
    """Return an error with a short reason, which never holds what may be a secret."""
    text = re.sub("'[^']*'", "", str(error))  # names of buckets and keys may read like anything

    reason: tuple[int, str]
    if _NO_BUCKET.search(text):
        reason = errno.ENOENT, f"bucket {url.authority} does not exist"
    elif isinstance(error, FileNotFoundError):
        reason = errno.ENOENT, "no such object"
    elif _SILENT.search(text):
        detail = re.search(r"Details: ([^;()]+)", text)  # what the network said
        suffix = f" ({detail[1].strip()})" if detail else ""
        reason = errno.ETIMEDOUT, f"the store does not respond{suffix}"
    elif _DENIED.search(text):
        reason = errno.EACCES, "the store denied access"
    else:
        reason = errno.EIO, str(error).partition(" (Request ID")[0]
    return OSError(*reason, str(url))


def _object_info(file_info: Any) -> ObjectInfo | None:
    if file_info.type == pa_fs.FileType.NotFound:
        return None
    is_object = file_info.type == pa_fs.FileType.File
    return ObjectInfo(file_info.size if is_object else None, file_info.mtime_ns)


def _path_of(url: Url) -> str:
    """Return the path of an object as the store's library writes it."""
    if url.scheme not in _OPENERS:
        path: str = _store_of(url).handler.fs._strip_protocol(str(url))
        return path
    container = url.authority.partition("@")[0] if url.scheme == "abfss" else url.authority
    return f"{container}/{url.key}".strip("/")


def _store_of(url: Url) -> Any:
    return _open(url.with_key(""))


@lru_cache(maxsize=8)
def _open(store: Url) -> Any:
    """Open a store, once for each bucket and query; fsspec opens those that pyarrow lacks."""
    if store.scheme in _OPENERS:
        return _OPENERS[store.scheme](store)

    unknown = f"unknown store {store.scheme}://"
    try:
        import fsspec
    except ImportError as error:
        raise OSError(
            errno.EPROTONOSUPPORT, f"{unknown}; pip install 'rnnforecast[fsspec]'", str(store)
        ) from error
    try:
        file_system, _ = fsspec.core.url_to_fs(str(store))
    except (ValueError, ImportError) as error:
        raise OSError(errno.EPROTONOSUPPORT, f"{unknown} ({error})", str(store)) from error
    return pa_fs.PyFileSystem(pa_fs.FSSpecHandler(file_system))


def _open_s3(store: Url) -> Any:
    query = dict(store.query)
    endpoints = (query.get("endpoint_override"), *map(os.environ.get, _S3_ENDPOINTS))
    endpoint = next(filter(None, endpoints), None)
    scheme, _, host = (endpoint or "").rpartition("://")
    regions = (query.get("region"), *map(os.environ.get, ("AWS_REGION", "AWS_DEFAULT_REGION")))
    region = next(filter(None, regions), "us-east-1" if endpoint else None)

    return pa_fs.S3FileSystem(
        anonymous=query.get("anonymous") == "true",
        endpoint_override=host.rstrip("/") or None,
        scheme=query.get("scheme") or scheme or "https",
        region=region or pa_fs.resolve_s3_region(store.authority),
        tls_ca_file_path=query.get("tls_ca_file_path"),
        connect_timeout=CONNECT_S,
        request_timeout=ANSWER_S,
        retry_strategy=pa_fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # a small object is one request, and no upload in parts
    )


def _open_gs(store: Url) -> Any:
    query = dict(store.query)
    return pa_fs.GcsFileSystem(
        anonymous=query.get("anonymous") == "true",
        endpoint_override=query.get("endpoint_override"),
        scheme=query.get("scheme"),
        project_id=query.get("project_id"),
        retry_time_limit=timedelta(seconds=ANSWER_S),
    )


def _open_azure(store: Url) -> Any:
    """Open Azure's store; the account is in the URL, or in the environment as for `az`."""
    query = dict(store.query)
    host = store.authority.rpartition("@")[2] if store.scheme == "abfss" else ""
    account = host.partition(".")[0] or query.get("account")
    account = account or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")

    if not account:
        raise OSError(
            errno.EINVAL,
            "the account is missing: set AZURE_STORAGE_ACCOUNT_NAME or add ?account=NAME",
            str(store),
        )

    return pa_fs.AzureFileSystem(
        account,
        account_key=os.environ.get("AZURE_STORAGE_ACCOUNT_KEY"),
        sas_token=os.environ.get("AZURE_STORAGE_SAS_TOKEN"),
        **{name: value for name, value in query.items() if name != "account"},
    )


_OPENERS: dict[str, Callable[[Url], Any]] = {
    "s3": _open_s3,
    "gs": _open_gs,
    "az": _open_azure,
    "abfss": _open_azure,
}
"""The functions that open a store of pyarrow, by scheme."""
