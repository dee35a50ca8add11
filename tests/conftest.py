"""Shared fixtures. ``MSS_GOLDEN`` names a folder with reference vectors; tests that need them are skipped without it."""
