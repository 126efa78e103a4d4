"""What goes wrong between here and the hub, as one sentence each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager

from ltxrt.engines.errors import InputError, LtxrtError
from ltxrt.export import families
from ltxrt.export.hub.reference import Reference


class UnreachableError(LtxrtError):
    """There is no answer from the hub."""


@contextmanager
def asking(reference: Reference) -> Iterator[None]:
    """Around calls of huggingface_hub about `reference`: its failures as one sentence each."""
    from huggingface_hub import errors

    network: type[Exception] = vars(errors)["HTTPError"]  # httpx's, of the version that it uses
    try:
        yield
    except (errors.HFValidationError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise InputError(_refused(reference, error)) from error
    except errors.EntryNotFoundError as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(reference, error) from error
        raise InputError(f"{reference}: the hub has no such file any more; run the command again") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise InputError(_closed(reference)) from error
        if status in (429, *range(500, 600)):
            raise _unreachable(reference, error) from error
        raise LtxrtError(f"{reference}: the hub answered {status}; try again later") from error
    except (network, errors.OfflineModeIsEnabled) as error:
        raise _unreachable(reference, error) from error
    except (errors.XetDownloadError, errors.FileMetadataError) as error:
        raise LtxrtError(f"{reference}: the download failed ({error}); run the command again") from error


def _refused(reference: Reference, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _closed(reference)
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"{reference}: {reference.repo} has no branch, tag or commit {reference.revision!r:.60}; "
            "leave it out for the newest"
        )
    near = difflib.get_close_matches(reference.repo, families.repositories(), 2)
    meant = f"did you mean {' or '.join(near)}?" if near else "check the name."
    return (
        f"{reference}: is neither a file or folder here nor a repository on {endpoint()}; {meant} If it is "
        "private, log in with: hf auth login"
    )


def _closed(reference: Reference) -> str:
    return (
        f"{reference}: is gated: accept its terms on {endpoint()}/{reference.repo} and log in with: hf auth "
        "login, or set HF_TOKEN"
    )


def _unreachable(reference: Reference, error: Exception) -> UnreachableError:
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{endpoint()} cannot be reached"
    return UnreachableError(
        f"{reference}: {why} and the cache has no copy of it; connect, or give the path of a file that was "
        "downloaded elsewhere"
    )


def endpoint() -> str:
    """The hub's address: HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT
