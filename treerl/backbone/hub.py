"""Files of the model hub, from its cache or downloaded, and what the hub refuses, in our words."""

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from treerl.errors import InputError, first_line

_PATIENCE = 10.0  # seconds for the hub to answer


def is_id(source: str) -> bool:
    """Whether a text can be a repository's id such as owner/name, and is no path."""
    return not source.startswith((".", "/", "~")) and source.count("/") == 1


def file(what: str, repository: str, name: str, revision: str | None, instead: str) -> str:
    """The path of a file of a repository; `InputError` says why not, and what to do `instead`."""
    try:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return cached
        HfApi().model_info(
            repository, revision=revision, timeout=_PATIENCE
        )  # a download would try for half a minute
        return hf_hub_download(repository, name, revision=revision)
    except Exception as error:
        raise InputError(
            f"{what}: {refusal(error, repository, name, revision, instead)}"
        ) from error


def refusal(
    error: Exception, repository: str, name: str, revision: str | None, instead: str
) -> str:
    """Why the hub did not give a file, and what to do."""
    if isinstance(error, GatedRepoError):
        place = f"{constants.ENDPOINT}/{repository}"
        return f"the repository is gated: accept its licence at {place}, then `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return f"the repository {repository} has no revision {revision!r}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"no such repository at {constants.ENDPOINT} (a private one needs `hf auth login`), "
            "and no such folder"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"the repository has no {name}: name the one that holds it"
    if isinstance(error, HFValidationError | HfHubHTTPError):
        return first_line(error)
    # anything else is one of the many ways in which there is no network
    get = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    return (
        f"it is neither a folder nor in the cache {constants.HF_HUB_CACHE}, and "
        f"{constants.ENDPOINT} cannot be reached ({first_line(error)}); where there is a network "
        f"run `{get}` and copy that cache, or {instead}"
    )
