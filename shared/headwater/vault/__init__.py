"""Sealing of credentials: HPKE to an organization's public key, one ciphertext per field.

In here: `seal` (anyone may import it), `unseal` (the worker alone), the key pairs and the providers that wrap their
private halves. Not in here: what a credential means to a connector.
"""
