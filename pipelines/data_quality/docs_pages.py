"""Data Docs that ask nobody for anything: Great Expectations' content in pages of our own, without scripts."""

from __future__ import annotations

from typing import ClassVar

from great_expectations.render.view.view import DefaultJinjaPageView
from jinja2 import ChoiceLoader, PackageLoader


class DocsPage(DefaultJinjaPageView):
    """A page of Data Docs: the index, a suite, or a validation result."""

    _template: ClassVar[str] = "lakehouse_page.j2"

    def __init__(self, custom_styles_directory: str | None = None, custom_views_directory: str | None = None) -> None:
        super().__init__(custom_styles_directory, custom_views_directory)
        # Ours come first: the original ones fetch style sheets and scripts from other hosts.
        own = PackageLoader("pipelines.data_quality", "docs_templates")
        self.env.loader = ChoiceLoader([own, *([self.env.loader] if self.env.loader else [])])
