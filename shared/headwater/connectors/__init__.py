"""Connector specs: for each `type`, what may be configured and what it can do.

In here: the shape of a spec, the registry, one file per built-in type. Not in here: how to talk to a source (that is
the runtime, in the worker) or any SDK. Specs are loaded by the API and the worker alike.
"""
