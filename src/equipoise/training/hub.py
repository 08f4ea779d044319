"""Saved models on the Hugging Face Hub: down by name, up into a repository."""

from __future__ import annotations

from pathlib import Path

from equipoise.layers.text_files import reachable


def download_model(name: str, revision: str | None = None) -> Path:
    """The local folder of a model on the hub: the newest one, or the cached one where the hub is out of reach.

    Args:
        name: ``owner/name``.
        revision: a branch, a tag or a commit; None for the main branch.

    Raises:
        FileNotFoundError: no such name or revision, or it can't be fetched; one line.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    missing = f"Model {name!r}" + (f" at revision {revision!r}" if revision else "")
    # The hub's client retries for some 20 s before it gives up.
    offline = constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT)
    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=offline))
    except HFValidationError:
        raise FileNotFoundError(f"{missing} is neither a folder nor a valid hub name.") from None
    except LocalEntryNotFoundError:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        raise FileNotFoundError(
            f"{missing} is neither a folder nor in the local hub cache, and {why}. Give the folder of a saved model."
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise FileNotFoundError(f"{missing} is no folder, and the hub did not give it: {_reason(error)}") from None


def push_model(folder: Path, repository: str) -> str:
    """Upload a saved model's folder as one commit; a repository that is not there yet is made, private.

    Returns:
        The page of the repository.

    Raises:
        OSError: offline, not logged in, or the hub refuses; one line.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"
        raise OSError(f"{folder} can't be pushed to {repository!r}: {why}. The folder is complete: push it later.")
    api = HfApi()
    try:
        page = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repository, commit_message="Add the model")
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise OSError(f"{folder} can't be pushed to {repository!r}: {_reason(error)} (`hf auth login`?)") from None
    return str(page)


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
