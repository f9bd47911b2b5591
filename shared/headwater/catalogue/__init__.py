"""What jobs find and bring in: files, loads, items, rejects; how they are compared, landed and read.

Not in here: reading bytes or parsing records (the worker's sync engine).
"""
