"""Checks FHIR R4 XML against conformance resources (profiles, value sets, code systems). Knows nothing of eAU.

In: `Definitions`, built from plain dicts as they stand in official packages (`packages.load`) or in a rule set
of our own. `rules.compile_rules` turns the StructureDefinition snapshots and their FHIRPath invariants into
specialised Python functions; `RuleSet.check_xml` judges one document with them. A document is valid if no
finding is an error (`finding.has_errors`).

    node           XML bytes to a light tree          fhirpath/     expressions to Python statements
    definitions    the conformance resources          compile/      profiles to Python functions
    rules          compile, keep on disk, run         check         one run over one document
    packages       official packages on disk          finding       what was wrong, in two languages

Source: FHIR R4 (4.0.1) § 2.6.1 XML, § 5.3 StructureDefinition, § 5.1 profiling; FHIRPath 2.0.0;
quirks of the reference validator as noted in limits.md § 4.
"""

from schleuse.fhir.definitions import Definitions
from schleuse.fhir.finding import Finding, Severity
from schleuse.fhir.node import Node, parse
from schleuse.fhir.rules import RuleSet, compile_rules

__all__ = ["Definitions", "Finding", "Node", "RuleSet", "Severity", "compile_rules", "parse"]
