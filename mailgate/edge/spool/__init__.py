"""Messages on disk while the next hop can not take them: SQLite through SQLAlchemy Core.

`Store` is the daemon's face of it (asynchronous, group commit), `Database` the file that the operator's verbs open.
"""

from mailgate.edge.spool.control import Pause
from mailgate.edge.spool.database import Database
from mailgate.edge.spool.errors import SpoolAbsent, SpoolBusy, SpoolDamaged
from mailgate.edge.spool.housekeeping import Tended
from mailgate.edge.spool.opening import Opened
from mailgate.edge.spool.query import Counts
from mailgate.edge.spool.store import Control, Store

__all__ = [
    "Control",
    "Counts",
    "Database",
    "Opened",
    "Pause",
    "SpoolAbsent",
    "SpoolBusy",
    "SpoolDamaged",
    "Store",
    "Tended",
]
