"""Jobs: submitting, reading, waiting, watching, cancelling, retrying.

The hot lane: what clients do all day, one round trip a request. Not in here: what a job does (the worker).
"""
