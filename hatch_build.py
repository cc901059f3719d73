"""The README as PyPI shows it: its links and pictures lead to the repository."""

import pathlib
import re

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Readme(MetadataHookInterface):
    """Reads README.md, and the address from `[project.urls]`."""

    def update(self, metadata: dict) -> None:
        """Sets the readme of the project's metadata."""
        text = (pathlib.Path(self.root) / "README.md").read_text()
        address = metadata["urls"]["Repository"]
        text = re.sub(r' src="(?!https?:)', rf' src="{address}/raw/main/', text)
        text = re.sub(r"\]\((?!https?:|#)", rf"]({address}/blob/main/", text)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
