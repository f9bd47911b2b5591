"""Uploaded files: their rows, and where their bytes are kept: a directory, or a bucket.

In here: the table, the storage and its two kinds, the statements that move an upload from one state to the next, what a
worker reads. Not in here: how a request's body arrives (that is the API's).
"""
