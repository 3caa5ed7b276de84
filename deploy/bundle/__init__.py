"""Everything to install Cairn on a machine without a network: locks, wheels, a list, an archive.

Fetching is pip's work, under whatever configuration pip has where this runs; no
package host is named here or in anything written here. A file that its lock
does not name by SHA-256 enters neither an image nor an archive.
"""
