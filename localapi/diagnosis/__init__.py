"""What works on this machine, what is missing, and the command that mends it: for `localapi doctor`.

Looks, and changes nothing. Each check has a name and is done within a time limit, whatever it waits for.
"""

from localapi.diagnosis.checks import CHECKS
from localapi.diagnosis.finding import Finding, Subject, examine

__all__ = ["CHECKS", "Finding", "Subject", "examine"]
