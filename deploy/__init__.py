"""Installation of Cairn on machines; the only Python here is the one-machine demo."""
