"""What tests of silver and gold share: the sample book, all models built out of it, once in the run."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from pipelines.storage import DeltaLakeManager
from tests.transform import book_lake
from tests.transform.sample_book import SampleBook, sample_book


@pytest.fixture(scope="session")
def book() -> SampleBook:
    return sample_book()


@pytest.fixture(scope="session")
def book_bars(book: SampleBook) -> pa.Table:
    """The book's bars and finer ones."""
    return pa.concat_tables([book.bars, book_lake.fine_bars()])


@pytest.fixture(scope="session")
def built_book(
    book: SampleBook, book_bars: pa.Table, tmp_path_factory: pytest.TempPathFactory, spark: SparkSession
) -> DeltaLakeManager:
    """The book in a lake, with every model and its tests; nobody changes it."""
    folder = tmp_path_factory.mktemp("book")
    lake = book_lake.land(folder, book, book_bars)
    book_lake.build(lake, folder, "build")
    return lake
