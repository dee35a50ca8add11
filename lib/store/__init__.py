"""What is kept on disk: files, runs, tables, provenance."""
