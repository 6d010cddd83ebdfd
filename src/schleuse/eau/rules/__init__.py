"""Our own compact rules for eAU 1.1.0, 1.2.0 and 1.2.1, Storno and Fehlernachricht (eau.md §§ 6 to 12).

They are why a fresh machine without any official package checks fully. They are written as Python tables in a small
notation of ours and expanded to FHIR conformance resources, which the same engine runs that runs the official
packages. What is not listed is forbidden. A corpus of broken documents proves that both sources give the same
verdict (tests/eau/corpus.py).

    edition      which of the three rule sets, and what differs between them
    notation     the words the tables are written in;  expand  from tables to StructureDefinition, ValueSet, CodeSystem
    parts        pieces that many resources share;  terminology  code lists
    extensions, people, coverage, conditions, composition, bundle, storno, fehlernachricht   the tables
    invariants   every rule that needs an expression, with its text in German and English
"""

from schleuse.eau.rules.edition import EDITIONS, Edition
from schleuse.eau.rules.profiles import ROOTS, definitions
from schleuse.eau.rules.texts import invariant_text, list_title

__all__ = ["EDITIONS", "ROOTS", "Edition", "definitions", "invariant_text", "list_title"]
