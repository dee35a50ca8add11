"""Storage: files, runs, tables, provenance."""
