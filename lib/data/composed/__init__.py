"""The embedded corpus: songs composed by rule, rendered stem by stem."""
