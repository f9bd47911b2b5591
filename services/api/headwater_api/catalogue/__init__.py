"""What jobs found and brought in: files, items, rejects, tables. Read-only.

Not in here: the jobs themselves, and uploads.
"""
