"""The courier's signed journal: what a site's network half asked, and of whom.

The ledger says what may leave. The journal says what the courier did about it: every
request stands in it, on the disk, before its first byte is sent, in a chain of hashes
under the courier's own key. ``weigh`` holds the one against the other, and both against
what the sockets counted. Nothing here opens a connection.
"""

from common.journal.balance import Balance
from common.journal.weighing import Evidence, weigh
from common.journal.writer import RequestJournal

__all__ = ["Balance", "Evidence", "RequestJournal", "weigh"]
