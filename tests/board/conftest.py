"""``inside`` runs in the environments that have pynq (:mod:`environments`), by the tests here."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("pynq") else ["inside"]
