"""Finance Lakehouse: a medallion lakehouse for market data."""
