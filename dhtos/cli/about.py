"""What runs here: the version and the kernels."""

from dhtos import kernels


def own_version() -> str:
    """The installed version; a bare checkout has none."""
    # What reads metadata also reads e-mail and zip files: a daemon can do without.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("dhtos")
    except PackageNotFoundError:
        return "unknown (a checkout that is not installed)"


def kernels_in_use() -> str:
    """ "compiled" or "reference"."""
    return "compiled" if kernels.COMPILED else "reference"
