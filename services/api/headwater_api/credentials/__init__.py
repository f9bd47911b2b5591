"""Credentials: sealed field by field, replaced, cleared, and never read back."""
