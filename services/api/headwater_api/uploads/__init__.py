"""Uploading files to the sources that take them.

In here: how a body arrives, what is refused, the routes. Not in here: where the bytes are kept (`headwater.uploads`).
"""
