"""The verbs of `./dev`, grouped by what they have to import.

Belongs here: arguments, and what is printed. Does not belong here: how things are done.
"""
