"""Registers people, material and devices from a table: all rows of a file, or none.

The columns are the fields of JSON Lines. References are VIDs, labels of the study, or
`study:label` (an individual by its code). Extra columns: `code` of an Individual enrolls it in the
study; `source` (`;` between several), `category` and `begin` of a vessel make the action that it
came by. What stands already is compared with the row: equal is unchanged, other is a conflict.
"""

from biobank_core.register.rows import registrable_kinds
from biobank_core.register.service import Registered, register

__all__ = ["Registered", "register", "registrable_kinds"]
