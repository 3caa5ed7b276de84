"""How Cairn is put on machines; the only Python here is the one-machine demo."""
