"""Being woken instead of looking again and again; whoever is not woken looks all the same.

Processes of one machine tell each other by a file that is renamed into a folder: the
kernel then wakes whoever watches it. No word is more than "look now": what there is to see
is read where it always was, and checked as it always was. Opens no connection.
"""

from common.waking.alarm import POLL_VARIABLE, Alarm
from common.waking.lookout import Lookout
from common.waking.rates import Bucket, Rate
from common.waking.stopping import STOP_SIGNALS, Stop, stop_on_signals

__all__ = [
    "POLL_VARIABLE",
    "STOP_SIGNALS",
    "Alarm",
    "Bucket",
    "Lookout",
    "Rate",
    "Stop",
    "stop_on_signals",
]
