"""The sync engine: inventory, parsing, validation, landing, showing. Memory is bounded by batch, not by file."""
