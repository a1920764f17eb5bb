"""A git commit as a validated snapshot: repository, documents, schemas, checks, conversion, hooks.

Read `loading` first: it shows the way from a tree of files to a `model.snapshot.Snapshot`.
"""
