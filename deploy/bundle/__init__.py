"""What a machine without a network needs to install Cairn: locks, wheels, their list, an archive.

Fetching is pip's work, under whatever configuration pip has where this runs; no
package host is named here or in anything written here. A file that its lock
does not name by SHA-256 enters neither an image nor an archive.
"""
