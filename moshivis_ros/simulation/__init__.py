"""Worlds to look at: scenes as data, rendered headless, written as SDF and read back."""
