"""``inside`` runs in the environments that have pynq (:mod:`bench.pynq_environments`), by the tests here."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("pynq") else ["inside"]
