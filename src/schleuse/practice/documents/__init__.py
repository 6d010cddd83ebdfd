"""Valid, varied eAU documents made from nothing, for the demo, the tests and people who connect a system.

`Generator` draws everything from the `random.Random` it is given and reads no clock, so a seed and an instant
always give the same bytes. What it writes follows eau.md §§ 3, 6, 7 and 11; all persons are invented.
"""

from schleuse.practice.documents.generator import Document, Facts, Generator
from schleuse.practice.documents.people import Doctor, Insurer, Patient, Practice
from schleuse.practice.documents.plan import Choices

__all__ = ["Choices", "Doctor", "Document", "Facts", "Generator", "Insurer", "Patient", "Practice"]
