from schleuse.database import run_migrations
from schleuse.kim.store.tables import METADATA

run_migrations(METADATA)
