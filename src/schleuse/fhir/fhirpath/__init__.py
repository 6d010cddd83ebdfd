"""FHIRPath, compiled to Python statements.

`syntax.parse` makes a tree of the text, `generate.Generator` statements of the tree, `functions` is what the
statements call. `evaluator` puts them together for one expression; the profile compiler (`fhir.compile`) puts the
statements of all invariants of an element into one function, so that they share what they look up.
"""

from schleuse.fhir.fhirpath.evaluate import Evaluator, evaluator
from schleuse.fhir.fhirpath.syntax import BadPathError, parse

__all__ = ["BadPathError", "Evaluator", "evaluator", "parse"]
