"""StructureDefinition snapshots to specialised Python functions.

One function per element definition that says something of its own: `def f12(n, x, r)` checks the Node `n`, which
stands in the resource `r`, and tells the `fhir.check.Check` `x` what it finds. `program` is what comes out,
`compiler` walks through profiles and types; `children`, `slices`, `values` and `invariants` each write their part of
a function's statements.
"""

from schleuse.fhir.compile.compiler import BadDefinitionsError, compile_program
from schleuse.fhir.compile.program import Gap, Program, Rule

__all__ = ["BadDefinitionsError", "Gap", "Program", "Rule", "compile_program"]
