"""From tables to figures, sentences, the report, cards and README."""
