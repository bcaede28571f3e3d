"""Checks for `localapi doctor`: what works on this machine, what is missing, and the command that fixes it.

Checks change nothing. Each has a name and a time limit.
"""

from localapi.diagnosis.checks import CHECKS
from localapi.diagnosis.finding import Finding, Subject, examine

__all__ = ["CHECKS", "Finding", "Subject", "examine"]
