"""What a storage's libraries say when something is wrong, in words that name place and remedy."""

import errno
import os
import socket
from collections.abc import Iterator

from pipelines.errors import AddressError, LabelopsError, StorageError, StorageTrouble
from pipelines.storage.address import redact, scheme_of

LOGIC = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What callers expect and handle: there is no such file, or there is one."""

NO_CREDENTIALS = frozenset(
    [
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "SSOTokenLoadError",
        "ProfileNotFound",
        "DefaultCredentialsError",
        "RefreshError",
        "CredentialUnavailableError",
        "ConfigNotFound",
    ]
)

REFUSED = frozenset(
    [
        "AccessDenied",
        "AllAccessDisabled",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "ExpiredToken",
        "InvalidSecurity",
        "AccountProblem",
        "Forbidden",
        "401",
        "403",
        "ClientAuthenticationError",
        "InvalidToken",
        "RequestTimeTooSkewed",
    ]
)

OUT_OF_REACH = frozenset(
    [
        "EndpointConnectionError",
        "ConnectTimeoutError",
        "ReadTimeoutError",
        "ConnectionClosedError",
        "ProxyConnectionError",
        "SSLError",
        "ClientConnectorError",
        "ClientConnectorDNSError",
        "ServerTimeoutError",
        "ServerDisconnectedError",
        "NameResolutionError",
        "ServiceRequestError",
    ]
)

KEYS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "abfs": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}

PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs",
            "abfss": "adlfs", "az": "adlfs", "sftp": "paramiko", "ssh": "paramiko",
            "oss": "ossfs", "webdav": "webdav4", "smb": "smbprotocol", "hf": "huggingface_hub",
            "http": "aiohttp", "https": "aiohttp"}  # fmt: skip


def explain(err: Exception, where: str) -> Exception:
    """Return what to raise for an error of fsspec, or a library below it, at an address.

    Returns
    -------
    A `StorageError` for what does not mend itself; an `OSError` for what may pass; the error as it
    is for what callers handle.
    """
    if isinstance(err, LabelopsError | StorageTrouble):
        return err
    chain = list(_chain(err))
    names = {type(e).__name__ for e in chain} | {_code(e) for e in chain}
    text = str(getattr(err, "strerror", None) or err).strip() or type(err).__name__
    said = redact(text).splitlines()[0].rstrip(".")
    number = getattr(err, "errno", None) or errno.EIO
    keys = KEYS.get(scheme_of(where), "FSSPEC_<PROTOCOL>_<KEY>")
    if isinstance(err, ImportError):
        scheme = scheme_of(where)
        install = f"pip install {PACKAGES[scheme]}" if scheme in PACKAGES else "install it"
        return StorageError(
            f"storage: the package for {scheme}:// addresses was expected to be installed, it is "
            f"not ({said}); for {where}. Remedy: {install}"
        )
    if isinstance(err, ValueError) and "rotocol not known" in said:
        return AddressError(
            f"address: a scheme of a known storage (s3, gs, abfs, …) was expected, got "
            f"{scheme_of(where)!r}; in {where}. Correct the scheme, or install the package of "
            "fsspec that brings it"
        )
    if "NoSuchBucket" in names or "bucket does not exist" in said.lower():
        return StorageError(
            f"storage: an existing bucket was expected at {where}, got: {said}. Correct the "
            "address, or make the bucket"
        )
    if isinstance(err, FileNotFoundError):
        # Theirs often say no more than a path.
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), where)
    if isinstance(err, LOGIC):
        return err
    if names & NO_CREDENTIALS or "credential" in said.lower():
        return StorageError(
            f"storage: credentials for {where} were expected, none were found that can be used "
            f"({said}). Put them into the environment ({keys}), or into ~/.config/fsspec"
        )
    if isinstance(err, PermissionError) or names & REFUSED:
        return StorageError(
            f"storage: the right to read, or to write, {where} was expected, it was refused "
            f"({said}). Check the address, and to whom the credentials belong ({keys})"
        )
    if names & {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraint"}:
        return StorageError(
            f"storage: the region of the bucket was expected, got another one for {where} "
            f"({said}). Set AWS_DEFAULT_REGION"
        )
    if isinstance(err, NotImplementedError) or names & {"NotImplemented", "MethodNotAllowed"}:
        return StorageError(
            f"storage: one that can be written was expected at {where}, this one cannot "
            f"({said}). Choose another place"
        )
    if names & OUT_OF_REACH or any(
        isinstance(e, ConnectionError | TimeoutError | socket.gaierror) for e in chain
    ):
        return StorageTrouble(
            number,
            f"storage: an answer was expected for {where}, none came ({said}). Check the address, "
            "the name of the machine and the network",
        )
    if isinstance(err, OSError):
        return StorageTrouble(
            number,
            f"storage: {where} was expected to be read or written, got: {said}. It may be gone in "
            "a moment",
        )
    return StorageError(
        f"storage: an answer that can be understood was expected from {where}, got "
        f"{type(err).__name__}: {said}. Check the address and the settings of the storage"
    )


def _chain(err: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    error: BaseException | None = err
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _code(err: BaseException) -> str:
    """Return the error code in a storage's answer, if it gave one."""
    answer = getattr(err, "response", None)
    error = answer.get("Error") if isinstance(answer, dict) else None
    return str(error.get("Code", "")) if isinstance(error, dict) else ""


def is_conflict(err: Exception) -> bool:
    """Say whether a conditional write was refused because the object is there."""
    codes = {_code(e) for e in _chain(err)}
    return isinstance(err, FileExistsError) or bool(codes & {"PreconditionFailed", "412"})
