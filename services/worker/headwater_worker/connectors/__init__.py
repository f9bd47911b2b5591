"""Connector runtimes: how to talk to each type of source.

In here: the seam (`base`), opening a source for a job (`opening`), the ladder of checks, one runtime file per built-in
type; these alone import SDKs. Runtimes do not import each other. Not in here: parsing, landing, what a job does.
"""
