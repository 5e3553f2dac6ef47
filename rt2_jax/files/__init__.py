"""Files on disk: written whole or not at all, held by one process at a time, told apart from damaged ones by hashes.

Everything that writes a folder goes through `writing.whole_folder`, which replaces nothing but what this package made.
"""
