"""Words the invented people, practices and diagnoses are made of. No real person or practice is meant."""

from __future__ import annotations

GIVEN = (
    "Anna", "Bernd", "Cem", "Dörte", "Elif", "Frieda", "Götz", "Hannelore", "Igor", "Jürgen", "Katharina",
    "Ludmila", "Malte", "Nele", "Özlem", "Piet", "Quirin", "Renée", "Sükrü", "Thea", "Ulrike", "Viktor",
    "Wiebke", "Xenia", "Yasemin", "Zoë", "Karl-Heinz", "Anne-Marie", "Jan Ole", "Łukasz",
)  # fmt: skip

FAMILY = (
    "Abendroth", "Bäcker", "Czerny", "Dahlmann", "Eßer", "Feldhüsen", "Großkreutz", "Hagedorn", "Ilgner",
    "Jäckel", "Kowalczyk", "Lindqvist", "Möllenbeck", "Nguyễn", "Öztürk", "Paffrath", "Quandt-Weiß",
    "Rübesam", "Schäfer", "Tütken", "Uhlenbrock", "Vößing", "Wüllner", "Yıldız", "Ziegenbein", "D'Angelo",
    "Müller-Lüdenscheidt", "Ševčík",
)  # fmt: skip

PREFIXES = ("von", "zu", "van der", "de", "von der", "zur")  #: Vorsatzworte
ADDITIONS = ("Freiherr", "Gräfin", "Graf")  #: Namenszusätze
TITLES = ("Dr.", "Dr. med.", "Prof. Dr.", "Dr. Dr.")

STREETS = (
    "Ahornweg", "Bürgermeister-Smidt-Straße", "Am Dohlenhorst", "Erfurter Straße", "Fährgasse", "Große Bleichen",
    "Heidekamp", "Im Siepen", "Kürschnergasse", "Lindenallee", "Mühlenstraße", "Neuer Wall", "Österreicher Weg",
    "Pappelallee", "Schloßplatz", "Tulpenweg", "Ulmenring", "Zum Alten Zoll",
)  # fmt: skip
HOUSE_NUMBERS = ("1", "3a", "7", "12", "15 b", "24-26", "88", "101", "5/7")
EXTRAS = ("Hinterhaus", "2. OG links", "c/o Wagenknecht", "Aufgang C", "Appartement 11")
PLACES = (
    ("10115", "Berlin"), ("20095", "Hamburg"), ("26122", "Oldenburg (Oldb)"), ("44787", "Bochum"),
    ("50667", "Köln"), ("60311", "Frankfurt am Main"), ("73525", "Schwäbisch Gmünd"), ("80331", "München"),
    ("90402", "Nürnberg"), ("99084", "Erfurt"), ("01067", "Dresden"), ("17489", "Greifswald"),
)  # fmt: skip
FOREIGN = (("A", "1010", "Wien"), ("CH", "4051", "Basel"), ("NL", "7511 AA", "Enschede"), ("PL", "00-001", "Warszawa"))

PRACTICES = (
    "Hausarztpraxis am Dohlenhorst", "Gemeinschaftspraxis Dr. Rübesam & Kollegen", "Praxis für Innere Medizin",
    "MVZ Fährgasse", "Orthopädie im Siepen", "Kinder- und Jugendarztpraxis Tulpenweg",
)  # fmt: skip
DENTAL_PRACTICES = ("Zahnarztpraxis Mühlenstraße", "Zahnmedizin am Neuen Wall")
HOSPITALS = ("Klinikum Heidekamp, Chirurgische Ambulanz", "St.-Elisabeth-Krankenhaus, Zentrale Notaufnahme")

INSURERS = (
    "AOK Musterland", "Betriebskrankenkasse Werft & Hafen", "Innungskasse Nordsüd", "Landkasse Grün",
    "Ersatzkasse Eins",
)  # fmt: skip

PROFESSIONS = ("Hausarzt", "Fachärztin für Allgemeinmedizin", "Facharzt für Innere Medizin", "Praktische Ärztin",
               "Fachärztin für Orthopädie und Unfallchirurgie")  # fmt: skip

#: ICD-10-GM codes with the text a practice might write beside them; second: whether a side makes sense.
DIAGNOSES = (
    ("J06.9", False, "Akute Infektion der oberen Atemwege"),
    ("M54.5", False, "Kreuzschmerz"),
    ("M54.4", True, "Lumboischialgie"),
    ("A09.9", False, "Gastroenteritis"),
    ("F43.2", False, "Anpassungsstörung"),
    ("F32.1", False, "Mittelgradige depressive Episode"),
    ("G43.9", False, "Migräne"),
    ("K52.9", False, "Gastroenteritis und Kolitis, nicht infektiös"),
    ("S93.40", True, "Distorsion des oberen Sprunggelenkes"),
    ("S61.0", True, "Offene Wunde eines Fingers"),
    ("I10.90", False, "Essentielle Hypertonie"),
    ("R51", False, "Kopfschmerz"),
    ("M17.1", True, "Primäre Gonarthrose"),
    ("U07.1", False, "COVID-19"),
    ("T78.4", False, "Allergie"),
)
DENTAL_DIAGNOSES = (
    ("K04.7", False, "Periapikaler Abszess"),
    ("K01.1", False, "Impaktierte Zähne"),
    ("K10.3", False, "Alveolitis der Kiefer"),
)
