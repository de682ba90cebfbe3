"""The catalogue of real machines that comes with the package, for the demo."""

from importlib import resources

from dhtos.core.schema import Schema
from dhtos.node.catalogue import Catalogue, Machine, load_catalogue, read_catalogue

SHIPPED = "cloud_instance_types.csv"


def shipped_catalogue(schema: Schema) -> Catalogue:
    """The instance types that come with the package."""
    text = resources.files("dhtos.data").joinpath(SHIPPED).read_text(encoding="utf-8")
    return read_catalogue(text.splitlines(keepends=True), schema, source=SHIPPED)


__all__ = ["Catalogue", "Machine", "SHIPPED", "load_catalogue", "shipped_catalogue"]
