"""The table of kinds, which the program, docs/reliability.md and the tests read."""

from scripts.knocks.caches import CACHES
from scripts.knocks.images import IMAGES
from scripts.knocks.models import MODELS
from scripts.knocks.scans import SCANS
from scripts.knocks.stops import DISKS, KILLS
from scripts.knocks.surroundings import SURROUNDINGS
from scripts.knocks.tables import TABLES

KINDS = {kind.name: kind for kind in (IMAGES, SCANS, TABLES, CACHES, KILLS, DISKS, MODELS, SURROUNDINGS)}
